"""Certificates: radii within which no input has another answer."""

from robustode.certificates.certificate import Certificate
from robustode.certificates.certify import certify
from robustode.certificates.registry import BOUNDS

__all__ = ["BOUNDS", "Certificate", "certify"]
