"""What esl_app counts. Labels have closed vocabularies: outcomes, refusal causes, methods, and the words below."""

from prometheus_client import Counter, Gauge, Histogram

from tandem.dial_policy import Refusal

CALLS = Counter("tandem_calls_total", "Calls that ended, by outcome; cause for those refused.", ["outcome", "cause"])
ACTIVE = Gauge("tandem_calls_active", "Calls under way at this worker.")
SETUP = Histogram(
    "tandem_call_setup_seconds",
    "From the call's arrival to its answer: the time the caller waits.",
    buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 10, 20),
)
FORK_CONNECT = Histogram(
    "tandem_fork_connect_seconds",
    "From uuid_audio_fork start to its connect event.",
    buckets=(0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
JOINED = Histogram(
    "tandem_placed_call_joined_seconds",
    "From the answer of a call that we placed until the agent heard it.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5),
)
WHO_ANSWERED = Counter(
    "tandem_placed_calls_answered_total",
    "Calls that we placed, by who answered and what decided that.",
    ["who", "rule"],
)
PLACING_REFUSED = Counter(
    "tandem_placing_refused_total", "Calls that were asked for and not placed, by cause.", ["cause"]
)
DIAL_REFUSED = Counter(
    "tandem_dial_refused_total",
    "What the dial policy refused to a transfer or fallback, here or at the edge.",
    ["refusal"],
)
for _refusal in Refusal:
    DIAL_REFUSED.labels(_refusal.value)
TRANSFERS = Counter("tandem_transfers_total", "Transfers that ended, by method and outcome.", ["method", "outcome"])
UNHEARD = Counter(
    "tandem_unheard_total", "Decisions carried out although the caller had not heard all that was said.", ["decision"]
)
"""``decision``: transfer, hang_up."""
FALLBACKS = Counter("tandem_fallbacks_total", "Answered calls taken to their fallbacks, by what was lost.", ["lost"])
"""``lost``: model, fork, fork_not_connected; no_model before the answer."""
RUNGS = Counter("tandem_fallback_rungs_total", "Fallbacks that were tried, by kind and result.", ["rung", "result"])
"""``rung``: destination, voicemail, regret; ``result``: reached, or a TransferOutcome."""
INVALID_COMMANDS = Counter("tandem_commands_invalid_total", "JSON frames from media_fork that are no command.")
DROPPED = Counter("tandem_esl_dropped_total", "Event sockets that esl_app gave up, by cause.", ["cause"])
DUTY_ERRORS = Counter("tandem_esl_errors_total", "Unforeseen exceptions, by where they were caught.", ["where"])
"""``where``: api, call, fitness, handler, inbound, placed_call, server."""
API_REQUESTS = Counter(
    "tandem_api_requests_total", "Requests to the API, by route and HTTP status.", ["route", "status"]
)
"""``route``: as ``POST /v1/calls``; ``none`` where the request got to none."""
ORPHANS = Counter(
    "tandem_orphans_total", "What an esl_app that is gone had left in FreeSWITCH, by what was done.", ["done"]
)
"""``done``: taken_over (calls), hung_up (legs)."""
UNFIT = Gauge("tandem_unfit", "1 while this worker takes no calls for this cause.", ["cause"])
"""``cause``: a value of fitness.Unfit."""
STRAY_LEGS = Counter("tandem_stray_legs_total", "Legs that could not be ended within the time for it.")
RECORDINGS = Counter("tandem_recordings_total", "Recordings begun, or that could not be.", ["result"])
"""``result``: started, failed."""
RECORDINGS_WAITING = Gauge("tandem_recordings_waiting", "Recordings that run, or are not encrypted yet.")
ARCHIVE_ENDS = Counter("tandem_archive_ends_total", "Times that the archive of recordings ended unasked.")
SWITCH_UP = Gauge("tandem_switch_up", "1 while the inbound event socket to FreeSWITCH is open.")
DRAINING = Gauge("tandem_draining", "1 while no new call is taken because the process is to end.")
