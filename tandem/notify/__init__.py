"""The notifier: tells people of emergency calls, beside the call. ``python -m tandem.notify --config PATH``.

    Kamailio's memory ──mailbox──▶ journal on disk ──delivery──▶ webhook, e-mail, syslog

Kamailio leaves a notice of each thing that happens to an emergency call in a table of its shared memory and forgets it; no
call waits for anybody. The notifier fetches notices over JSON-RPC, writes them down, and only then takes them out of the
table. What is written down is told to each recipient until it has taken it, whoever dies meanwhile.
"""
