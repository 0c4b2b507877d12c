# Images on Debian 13: `tandem` (esl_app, media_fork, the command line), `edge`, the same with Kamailio 6.0, and `media`, the
# same with rtpengine.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS tandem
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends ca-certificates python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && python3 -m venv /opt/tandem
ENV PATH=/opt/tandem/bin:$PATH PYTHONUNBUFFERED=1 TANDEM_CONFIG=/etc/tandem/tandem.yaml
WORKDIR /srv/tandem
# The libraries have a layer of their own: an upgrade that leaves them alone is a few MB.
COPY production.lock ./
RUN pip install -q --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r production.lock
COPY pyproject.toml README.md ./
COPY kamailio ./kamailio
COPY freeswitch ./freeswitch
COPY rtpengine ./rtpengine
COPY tandem ./tandem
COPY esl_app ./esl_app
COPY media_fork ./media_fork
COPY dialler ./dialler
RUN pip install -q --no-cache-dir --disable-pip-version-check --root-user-action=ignore --no-deps . && rm -r /srv/tandem/*
WORKDIR /
ENTRYPOINT ["tandem"]

FROM tandem AS edge
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends kamailio kamailio-extra-modules kamailio-tls-modules \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && mkdir -p /run/tandem/kamailio
ENTRYPOINT ["kamailio"]

FROM tandem AS media
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends rtpengine-daemon \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ENTRYPOINT ["rtpengine"]
