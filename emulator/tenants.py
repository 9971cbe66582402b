"""The tenants of this Azure: the workspace's own, and one abroad with a subscription of its own.

A token opens only the subscriptions of the tenant that issued it, as on Azure.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emulator.http import Refusal

if TYPE_CHECKING:
    from emulator.azure import Azure

ABROAD = "88888888-0000-0000-0000-000000000000"
"""The other tenant; the application that logs in is known there too."""
ABROAD_SUBSCRIPTION = "00000000-0000-0000-0000-000000000002"


def tenant_of(azure: "Azure", path: str) -> str:
    """The tenant of the subscription that an ARM path or id begins with."""
    abroad = path.lower().startswith(f"/subscriptions/{ABROAD_SUBSCRIPTION}")
    return ABROAD if abroad else azure.settings.tenant


def require(azure: "Azure", claims: Mapping[str, Any], path: str) -> None:
    """Refusal 401, in the control plane's words, where the token is of another tenant."""
    tenant = tenant_of(azure, path)
    if claims.get("tid") != tenant:
        raise Refusal(
            401,
            "InvalidAuthenticationTokenTenant",
            "The access token is from the wrong issuer "
            f"'https://sts.windows.net/{claims.get('tid')}/'. It must match the tenant "
            f"'https://sts.windows.net/{tenant}/' associated with this subscription. Please use "
            f"the authority (URL) 'https://login.windows.net/{tenant}' to get the token.",
        )
