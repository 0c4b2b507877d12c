"""How a recipient is told: an HTTPS POST that is signed, a mail, a line of syslog. Each raises DeliveryError."""

import asyncio
import contextlib
import hashlib
import hmac
import os
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

import aiohttp
from pydantic import BaseModel

from tandem.notify.notice import Notice
from tandem.recipients import (
    Email,
    Event,
    Mailbox,
    MailServer,
    Recipient,
    SignedPost,
    Syslog,
    SyslogTransport,
    Webhook,
)

PATIENCE_S = 10.0
"""For one attempt."""
SIGNATURE = "Tandem-Signature"
ALERT_FACILITY = 14
ALERT, NOTICE = 1, 5
"""Severities of RFC 5424."""
STRUCTURED_DATA = "tandem@32473"


class DeliveryError(Exception):
    """The recipient did not take it; the message says why, without what it was told."""


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """``t=UNIX-SECONDS,v1=HEX``: HMAC-SHA256 under the secret of ``UNIX-SECONDS.BODY``."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


async def tell(recipient: Recipient, notice: Notice, http: aiohttp.ClientSession, now: Callable[[], float]) -> None:
    """One attempt. Raises DeliveryError."""
    if not recipient.location:
        notice = notice.model_copy(update={"location": None})
    async with attempt():
        if isinstance(recipient, Webhook):
            await post(recipient, notice, http, now)
        elif isinstance(recipient, Email):
            await mail(recipient, letter(recipient, notice))
        else:
            await _log_line(recipient, notice)


@contextlib.asynccontextmanager
async def attempt(patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
    """What is done within it has ``patience_s``, and raises DeliveryError where it does not succeed."""
    try:
        async with asyncio.timeout(patience_s):
            yield
    except TimeoutError as error:
        raise DeliveryError(f"no answer in {patience_s:.0f} s") from error
    except (aiohttp.ClientError, smtplib.SMTPException, OSError) as error:
        raise DeliveryError(f"{type(error).__name__}: {error}") from error


async def post(place: SignedPost, notice: BaseModel, http: aiohttp.ClientSession, now: Callable[[], float]) -> None:
    """POST it as JSON, signed. Within an ``attempt``."""
    body = notice.model_dump_json(exclude_none=True).encode()
    headers = {
        "Content-Type": "application/json",
        SIGNATURE: signature(place.secret.get_secret_value(), int(now()), body),
    }
    async with http.post(place.url, data=body, headers=headers, allow_redirects=False) as reply:
        if not 200 <= reply.status < 300:
            raise DeliveryError(f"HTTP {reply.status}")


def envelope(place: MailServer, subject: str, time: datetime, id: str) -> EmailMessage:
    """A mail without its contents; ``id`` is the same each time that it is sent."""
    mail = EmailMessage()
    mail["Subject"] = subject
    mail["From"] = place.sender
    mail["To"] = ", ".join(place.to)
    mail["Date"] = format_datetime(time)
    mail["Message-ID"] = f"<{id}@tandem.invalid>"
    return mail


def letter(recipient: Email, notice: Notice) -> EmailMessage:
    """The mail: all that is known in its text, the PIDF-LO as it was sent attached."""
    mail = envelope(recipient, notice.headline, notice.time, notice.id)
    if not notice.test:
        mail["Importance"] = "high"
    facts = notice.model_dump(mode="json", exclude={"location", "version"}, exclude_none=True)
    lines = [notice.headline, "", *(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items())]
    if notice.location:
        lines += [f"location: {notice.location.words() or 'see below'}"]
        lines += [f"geolocation: {value}" for value in notice.location.geolocation]
    elif notice.event is Event.PLACED and recipient.location:
        lines += ["location: none was sent; the address registered for the call back number counts"]
    mail.set_content("\n".join(lines) + "\n")
    for document in notice.location.pidf_lo if notice.location else ():
        mail.add_attachment(document.encode(), "application", "pidf+xml", filename="location.xml")
    return mail


async def mail(place: MailServer, message: EmailMessage) -> None:
    """Hand a mail to the server. Within an ``attempt``."""
    await asyncio.to_thread(_mail, place, message)


def _mail(place: MailServer, message: EmailMessage) -> None:
    context = ssl.create_default_context()
    at = (place.server, place.port)
    if place.security is Mailbox.TLS:
        server: smtplib.SMTP = smtplib.SMTP_SSL(*at, timeout=PATIENCE_S, context=context)
    else:
        server = smtplib.SMTP(*at, timeout=PATIENCE_S)
    try:
        if place.security is Mailbox.STARTTLS:
            server.starttls(context=context)
        if place.username is not None:
            server.login(place.username, place.password.get_secret_value())
        refused = server.send_message(message)
        # It has the mail, whatever becomes of the goodbye.
        with contextlib.suppress(smtplib.SMTPException, OSError):
            server.quit()
    finally:
        server.close()
    if refused:
        raise DeliveryError(f"refused for {', '.join(refused)}")


def line(notice: Notice, host: str, process: int) -> bytes:
    """A message of RFC 5424."""
    priority = ALERT_FACILITY * 8 + (NOTICE if notice.test else ALERT)
    facts = notice.model_dump(mode="json", exclude={"location", "version", "time"}, exclude_none=True)
    if notice.location:
        facts["location"] = notice.location.words() or " ".join(notice.location.geolocation)
    data = " ".join(f'{key}="{_escaped(str(value))}"' for key, value in facts.items())
    head = f"<{priority}>1 {notice.time.isoformat()} {host} tandem {process} {notice.event.value}"
    return f"{head} [{STRUCTURED_DATA} {data}] \ufeff{notice.headline}".encode()


def _escaped(value: str) -> str:
    for character in '\\"]':
        value = value.replace(character, f"\\{character}")
    return value.replace("\n", " ")


async def _log_line(recipient: Syslog, notice: Notice) -> None:
    message = line(notice, socket.gethostname(), os.getpid())
    if recipient.transport is SyslogTransport.UDP:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(recipient.server, recipient.port)
        )
        transport.sendto(message)
        transport.close()
        return
    context = ssl.create_default_context() if recipient.transport is SyslogTransport.TLS else None
    _, writer = await asyncio.open_connection(recipient.server, recipient.port, ssl=context)
    try:
        writer.write(f"{len(message)} ".encode() + message)
        await writer.drain()
    finally:
        writer.close()
    await writer.wait_closed()
