"""What is required of a message: rules that security staff write and auditors read. No sockets, database or clock.

1. ``bundle``      configuration and policy files together, all faults at once
2. ``parse``       from YAML to rules; ``when`` reads the conditions
3. ``conditions``  three-valued: true, false, cannot be known (``patterns``: addresses; ``facts``: what is known)
4. ``rules``       the policy as a value, with its digest
5. ``evaluate``    the strictest wins, in any order
"""

from gateway.policy.evaluate import CONTRADICTION, PROTECT_HEADER, evaluate, evaluate_envelope
from gateway.policy.facts import MessageFacts
from gateway.policy.rules import Hold, Policy, Protection, Require, Rule

__all__ = [
    "CONTRADICTION",
    "PROTECT_HEADER",
    "Hold",
    "MessageFacts",
    "Policy",
    "Protection",
    "Require",
    "Rule",
    "evaluate",
    "evaluate_envelope",
]
