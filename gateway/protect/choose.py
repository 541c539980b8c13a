"""Choosing a method: a pure function from what is required and what is possible.

Among the allowed methods the gateway's one ranking decides. A method that cannot is passed over with its reason;
nothing known against a method means that it may be tried. The fallback clock is applied by the caller: it turns a
"not now" into a "cannot" when its time is over.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.mail.protection import Capability, Decision, Method, PassedOver, Requirement

__all__ = ["BUILT", "NO_PORTAL", "choose", "unavailable"]

#: The methods that this version can carry out.
BUILT = frozenset({Method.PLAIN, Method.TLS, Method.PORTAL})
#: Why nothing can lie in the portal where there is none.
NO_PORTAL = "no portal is set up (portal.url)"


def unavailable(portal: str = NO_PORTAL) -> dict[Method, Capability]:
    """The capabilities that are known without a look at the recipient: what this version, and this gateway, cannot do.

    ``portal``: why this message cannot lie in the portal; "" where it can.
    """
    known = {
        method: Capability(method, possible=False, reason="not available in this version")
        for method in Method
        if method not in BUILT
    }
    if portal:
        known[Method.PORTAL] = Capability(Method.PORTAL, possible=False, reason=portal)
    return known


def choose(requirement: Requirement, known: Mapping[Method, Capability]) -> Decision:
    """The best method that nothing speaks against, and those passed over on the way to it."""
    passed: list[PassedOver] = []
    for method in requirement.ranking():
        capability = known.get(method)
        if capability is None or capability.possible:
            return Decision(requirement, method, tuple(passed))
        passed.append(PassedOver(method, capability.reason, capability.definite))
    return Decision(requirement, None, tuple(passed))
