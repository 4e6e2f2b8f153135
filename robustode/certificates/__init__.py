"""Certificates: radii within which no input has another answer."""

from robustode.certificates.certificate import Certificate
from robustode.certificates.certify import certify
from robustode.certificates.registry import BOUNDS
from robustode.certificates.smoothing import SmoothedCertificate, smooth

__all__ = ["BOUNDS", "Certificate", "SmoothedCertificate", "certify", "smooth"]
