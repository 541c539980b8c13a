"""Every answer of ingress other than success, in one place: code, enhanced code, text and label.

The labels (``reason`` in logs and in ``gateway_messages_received_total{result}``) are a closed set:

=====================  ======================================================================
``syntax``             a command, parameter or address that is malformed, or out of order
``unknown_command``    a verb that does not exist or is not offered
``too_many_errors``    more bad commands in one session than allowed
``tls_required``       a command that needs TLS first
``starttls_injection`` plain bytes behind STARTTLS
``handshake``          the TLS handshake failed
``proxy``              a proxy sent no header of the PROXY protocol, or none that can be taken
``timeout``            a command, a block of data or a handshake took too long
``too_slow``           data below the minimum rate
``auth``               a log-in that failed
``auth_required``      only connectors that ask for a log-in would take it
``auth_limit``         too many failed log-ins from a network, or too many at once
``connections``        too many connections: in all, from a network, or for a connector
``messages``           too many messages in one session
``rate``               more messages a minute than the connector may send
``memory``             messages on their way in hold all the memory that they may
``recipients``         more recipients than allowed
``too_large``          the message or its header is too large
``smuggling``          bare CR, bare LF or NUL in the message
``malformed``          a header block, From field or control field that cannot be read in one way only
``connector``          no connector lets this message in
``policy``             what the intake's policy said, where it gave no label of its own
``dkim_temporary``     the key of a signature could not be looked up now
``loop``               the message has passed too often
``stopping``           the gateway is stopping
``store``              our own storage, or another fault of ours
=====================  ======================================================================

The intake adds labels of its own for what policy and store answer.
"""

from __future__ import annotations

from enum import StrEnum

from gateway.errors import GatewayError, Refusal

__all__ = ["Reason", "from_error", "refusal"]


class Reason(StrEnum):
    """The labels of refusals."""

    SYNTAX = "syntax"
    UNKNOWN_COMMAND = "unknown_command"
    TOO_MANY_ERRORS = "too_many_errors"
    TLS_REQUIRED = "tls_required"
    STARTTLS_INJECTION = "starttls_injection"
    HANDSHAKE = "handshake"
    PROXY = "proxy"
    TIMEOUT = "timeout"
    TOO_SLOW = "too_slow"
    AUTH = "auth"
    AUTH_REQUIRED = "auth_required"
    AUTH_LIMIT = "auth_limit"
    CONNECTIONS = "connections"
    MESSAGES = "messages"
    RATE = "rate"
    MEMORY = "memory"
    RECIPIENTS = "recipients"
    TOO_LARGE = "too_large"
    SMUGGLING = "smuggling"
    MALFORMED = "malformed"
    CONNECTOR = "connector"
    POLICY = "policy"
    DKIM_TEMPORARY = "dkim_temporary"
    LOOP = "loop"
    STOPPING = "stopping"
    STORE = "store"


def refusal(code: int, enhanced: str, text: str, reason: Reason, detail: str = "") -> Refusal:
    """A refusal; ``text`` goes to the client, ``detail`` only to the log."""
    return Refusal(code, enhanced, text, reason=str(reason), detail=detail)


def from_error(error: BaseException) -> Refusal:
    """What to answer to an exception: a refusal as it is, anything else a temporary fault of ours.

    The client never reads the exception's own text.
    """
    if isinstance(error, Refusal):
        return error
    kind = type(error) if isinstance(error, GatewayError) else GatewayError
    return refusal(kind.code, kind.enhanced, kind.public, Reason.STORE, detail=f"{type(error).__name__}: {error}")
