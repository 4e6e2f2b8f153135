"""What the benchmarks of attacks share: configurations, models with their images, stored runs, tables, figures."""
