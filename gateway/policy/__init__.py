"""What is required of a message: rules that security staff write and auditors read. No sockets, database or clock.

1. ``bundle``      configuration and policy files together, all faults at once
2. ``parse``       from YAML to rules: ``scope`` reads groups and detectors, ``rules_read`` rules, ``when`` their
   conditions, ``actions_read`` their actions, ``exceptions_read`` exceptions, ``cases_read`` policy tests
3. ``conditions``  three-valued: true, false, cannot be known; ``about_envelope``, ``about_header``, ``about_content``
   (``patterns``: addresses; ``facts``: what is known)
4. ``examine``     what is in a message, found once for all rules (``content``: questions and answers; ``detect``)
5. ``rules``       the policy as a value, with its digest; ``actions``; ``kinds``: the treatment of special mail
6. ``evaluate``    the strictest wins, in any order
"""

from gateway.policy.actions import Actions
from gateway.policy.content import ContentFacts
from gateway.policy.evaluate import CONTRADICTION, PROTECT_HEADER, evaluate, evaluate_envelope
from gateway.policy.facts import HeaderView, MessageFacts, protect_of
from gateway.policy.rules import Exempt, Hold, Policy, Protection, Require, Rule

__all__ = [
    "CONTRADICTION",
    "PROTECT_HEADER",
    "Actions",
    "ContentFacts",
    "Exempt",
    "HeaderView",
    "Hold",
    "MessageFacts",
    "Policy",
    "Protection",
    "Require",
    "Rule",
    "evaluate",
    "evaluate_envelope",
    "protect_of",
]
