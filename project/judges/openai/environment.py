"""HTTP clients as the environment wants them: proxies and certificates, named where they are at fault.

A client is made for one address with the one proxy that is meant for it, so that a proxy which another address would
use does no harm, and messages name the variable that was really used.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2 as httpx

from project.judges.openai.server import Address, without_secrets

CONNECT_TIMEOUT = 10.0
"""Longest wait for a connection [s]; the timeout counts if it is shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentProxy:
    """The proxy that requests to an address go through."""

    variable: str
    """Of the environment, or where else the setting is."""
    url: str
    host: str
    """Of the address: what NO_PROXY must name for a direct connection."""

    def __str__(self) -> str:
        return f"the proxy {without_secrets(self.url)} ({self.variable})"

    @property
    def remedy(self) -> str:
        """How to do without it."""
        return f"if the server is to be reached directly, name it in NO_PROXY (export NO_PROXY={self.host})"


def proxy_of(address: Address) -> EnvironmentProxy | None:
    """The proxy that the environment names for an address, None for a direct connection."""
    proxies = urllib.request.getproxies()
    name = next((name for name in (address.scheme, "all") if proxies.get(name)), None)
    direct = any(map(urllib.request.proxy_bypass, (address.host, address.place)))
    if name is None or direct or _in_a_network(address.host, proxies.get("no", "")):
        return None
    given = proxies[name]
    variables = [v for v in (f"{name}_proxy", f"{name}_PROXY".upper()) if os.environ.get(v) == given]
    return EnvironmentProxy(
        variable=variables[0] if variables else "the system's settings",
        url=given if "://" in given else f"http://{given}",
        host=address.host,
    )


def client_of(address: Address, headers: Mapping[str, str], timeout: float) -> httpx.Client:
    """A client for requests to one address.

    Raises:
        ValueError: if a variable of the environment keeps it from working: its name, and the remedy.
    """
    proxy = proxy_of(address)
    verify = _certificates()
    try:
        # Bounded by `concurrency`; a bound on connections too would only turn waiting into time-outs.
        return httpx.Client(
            headers=dict(headers),
            auth=address.user,
            timeout=httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            verify=verify,
            proxy=None if proxy is None else proxy.url,
            trust_env=False,
        )
    except ImportError as error:
        raise ValueError(
            f"{proxy} wants the package socksio, which is not installed: pip install socksio, or {_unset(proxy)}"
        ) from error
    except (ValueError, httpx.InvalidURL) as error:
        if proxy is None:
            raise
        raise ValueError(f"{proxy} is no proxy that can be used ({error}): correct it, or {_unset(proxy)}") from error


def _unset(proxy: EnvironmentProxy | None) -> str:
    assert proxy is not None
    return f"unset {proxy.variable}; {proxy.remedy}"


def _certificates() -> ssl.SSLContext:
    """The authorities that https servers are checked against, as the environment names them."""
    try:
        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            if path := os.environ.get(variable):
                raise ValueError(
                    f"the environment variable {variable} names {path}, which holds no certificates that can be read "
                    f"({error}): correct it, or unset {variable}"
                ) from error
        raise ValueError(f"the certificates of this machine cannot be read ({error})") from error


def _in_a_network(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY names a network (10.0.0.0/8) that holds the host; urllib knows names only."""
    try:
        place = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in no_proxy.split(","):
        try:
            if "/" in entry and place in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue  # Entries that are none are ignored, as everybody does.
    return False
