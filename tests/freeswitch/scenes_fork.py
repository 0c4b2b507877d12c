"""Scenes: what is played with a fork."""

import wave

import numpy as np

from tests.freeswitch.story import TONE, Story, over, scene
from tests.lab.esl_client import PATIENCE_S, until
from tests.lab.switch_rig import Rig


@scene
async def fork(rig: Rig, story: Story) -> None:
    """Answer, fork, talk both ways, stop, hang up."""
    listener = await rig.listener()
    call, esl = await rig.answered()
    metadata = '{"call":"abc"}'
    words = f"{rig.forks.url}/fork mono 16000 audio_fork '{metadata}' true true 24000"
    story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} start {words}"))
    fork = await rig.forks.next_fork()
    request = fork.connection.request
    assert request is not None
    story.tell("handshake", request.path)
    for name in sorted(request.headers):
        if name.lower() != "sec-websocket-key":
            story.tell("handshake", f"{name}: {request.headers[name]}")
    call.audio.play(TONE)
    await fork.heard(1.0, 16000)
    # 20 ms of 16 kHz a frame; a few of them in one where the machine was busy.
    story.tell(
        "fork", f"first {fork.messages[0]!r}, whole frames {all(len(audio) % 640 == 0 for audio in fork.frames)}"
    )
    story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} start {words}"))
    await fork.send('{"type":"json","data":{"a":[1,2.5,"x\\u00e9","y\\u0000z"]}}')
    await fork.send('{"type":"transfer","data":{"to":"sales"}}')
    await fork.send('{"type":"mark","data":{"name":"m1"}}')
    await fork.send(np.tile(TONE, 2).astype("<i2").tobytes())
    await call.audio.wait_loud(PATIENCE_S)
    await esl.event("mod_audio_fork::json")
    await until(lambda: any('"m1"' in text for text in fork.texts), lambda: f"the mark in {fork.texts}")
    story.tell("fork", [text for text in fork.texts if "mark" in text])
    before = len(listener.events)
    await fork.send("not json")
    await fork.send('{"type":"killAudio"}')
    await listener.event("mod_audio_fork::kill_audio", after=before)
    await call.audio.wait_quiet(300, PATIENCE_S)
    story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} send_text audio_fork '{{\"x\":1}}'"))
    story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} send_text other '{{\"x\":1}}'"))
    story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} stop audio_fork '{{\"bye\":1}}'"))
    await fork.closed.wait()
    story.tell("fork", f"{fork.texts[-2:]} closed {fork.connection.close_code} {fork.connection.close_reason!r}")
    story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} stop audio_fork"))
    story.tell("replies", await esl.api(f"uuid_kill {esl.uuid} NORMAL_CLEARING"))
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def fork_ended_by_server(rig: Rig, story: Story) -> None:
    """The server closes; the bug stays until it is stopped; hangup closes the second fork with 1000."""
    listener = await rig.listener()
    call, esl = await rig.answered()
    fork = await rig.fork(esl)
    await fork.heard(0.2)
    await fork.connection.close(4000, "enough")
    await listener.event("mod_audio_fork::disconnect")
    words = f"{rig.forks.url} mono 8000 audio_fork {{}} true true 8000"
    story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} start {words}"))
    story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} stop audio_fork"))
    story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} start {words}"))
    fork = await rig.forks.next_fork()
    await fork.heard(0.2)
    await call.hangup()
    await fork.closed.wait()
    story.tell("fork", f"closed {fork.connection.close_code} {fork.connection.close_reason!r}")
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def fork_refused(rig: Rig, story: Story) -> None:
    """connect_failed for a server that refuses, one that is not there, and one that does not answer the upgrade."""
    listener = await rig.listener()
    call, esl = await rig.answered()
    rig.forks.refuse_with = 403
    for target in (rig.forks.url, f"ws://{rig.loopback}:9"):
        before = len(listener.events)
        await esl.api(f"uuid_audio_fork {esl.uuid} start {target} mono 8000 audio_fork {{}} true true 8000")
        await listener.event("mod_audio_fork::connect_failed", after=before)
        story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} stop audio_fork"))
    rig.forks.refuse_with = None
    await call.hangup()
    await over(rig, story, listener, {"a": (esl.uuid, call)})


AWKWARD = (
    '{"plain":1}',
    '{"space":"a b  c"}',
    '{"apostrophe":"it\'s"}',
    '{"backslash":"C:\\\\dir\\\\new"}',
    '{"newline":"a\\nb\\ttab"}',
    '{"quote":"say \\"hi\\""}',
    '{"unicode":"Zoë — 東京 😀"}',
    '{"dollar":"${uuid} $$ ^^;a"}',
    '[1,"leading bracket"]',
    '{"url":"https://x.example/?a=1&b=2#c","semicolon":"a;b,c:d"}',
)


@scene
async def quoting(rig: Rig, story: Story) -> None:
    """What arrives of awkward texts: bare, in quotes as they are, and escaped; as metadata and by send_text."""
    call, esl = await rig.answered()
    fork = await rig.fork(esl, name="first")
    for text in AWKWARD:
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        for form in (text, f"'{text}'", f"'{escaped}'"):
            before = len(fork.texts)
            story.tell("replies", await esl.api(f"uuid_audio_fork {esl.uuid} send_text first {form}"))
            await esl.api(f"uuid_audio_fork {esl.uuid} send_text first '{{\"end\":1}}'")
            await until(lambda: fork.texts[-1:] == ['{"end":1}'], lambda: "the end")
            story.tell("texts", f"{form} -> {fork.texts[before:-1]}")
            fork.messages.append("-")
    for text in AWKWARD:
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        other = await rig.fork(esl, name="meta", metadata=f"'{escaped}'")
        await esl.api(f"uuid_audio_fork {esl.uuid} stop meta '{{\"end\":1}}'")
        await other.closed.wait()
        story.tell("metadata", other.texts)
    await call.hangup()
    await call.wait_ended(PATIENCE_S)


@scene
async def kill_audio(rig: Rig, story: Story) -> None:
    """killAudio empties what waits to be played, but not the prebuffer: that comes out in front of what follows."""
    call, esl = await rig.answered()
    fork = await rig.fork(esl)
    await fork.send(np.full(8000, 9000, dtype="<i2").tobytes())
    await call.audio.wait_loud(PATIENCE_S)
    await fork.send(np.full(300, 15000, dtype="<i2").tobytes())
    await fork.send('{"type":"killAudio"}')
    killed = await esl.event("mod_audio_fork::kill_audio")
    await call.audio.wait_quiet(300, PATIENCE_S)
    before = call.audio.heard()
    story.tell("frames", f"cut: {bool(0 < (before > 4000).sum() < 8000)}, {killed.body!r}")
    await fork.send(np.full(400, 25000, dtype="<i2").tobytes())
    await call.audio.wait_loud(PATIENCE_S)
    await call.audio.wait_quiet(300, PATIENCE_S)
    after = call.audio.heard()[len(before) :]
    story.tell("frames", f"{around(after, 15000)} samples of the killed part, then {around(after, 25000)} new ones")
    await call.hangup()
    await call.wait_ended(PATIENCE_S)


def around(samples: np.ndarray, level: int) -> int:
    return int((np.abs(samples.astype(int) - level) < 700).sum())


@scene
async def wideband(rig: Rig, story: Story) -> None:
    """G.722: frames of 16 kHz both ways, sounds and recordings of 16 kHz, a forked caller bridged to a G.711 leg."""
    listener = await rig.listener()
    call, esl = await rig.answered(codecs=("G722", "PCMU"))
    story.tell("codec", f"{call.codec}, {call.remote_sdp and call.remote_sdp.formats[0]}")
    for name in ("read_codec", "read_rate", "write_rate", "rtp_use_codec_rate", "rtp_use_codec_name", "rtp_use_pt"):
        story.tell("codec", f"{name} {await esl.api(f'uuid_getvar {esl.uuid} {name}')}")
    high = tone(5500, 2.0)
    for name, rate, stream_rate in (("wide", 16000, 16000), ("narrow", 8000, 8000)):
        fork = await rig.fork(esl, rate=rate, stream_rate=stream_rate, name=name)
        call.audio.play(high, WIDEBAND)
        await fork.heard(1.5, rate)
        heard = np.frombuffer(fork.audio, "<i2")[-rate:]
        story.tell("fork", f"{name}: whole frames {all(len(audio) % (rate // 25) == 0 for audio in fork.frames)}")
        story.tell("fork", f"{name}: 5500 Hz {share(heard, rate, 5500) > 0.5}")
        call.audio.stop_playing()
        await fork.send(np.resize(tone(3000 if rate == 8000 else 5500, 1.0, rate), rate).tobytes())
        await call.audio.wait_loud(PATIENCE_S)
        await call.audio.wait_quiet(300, PATIENCE_S)
        said = call.audio.heard(rate=WIDEBAND)[-2 * WIDEBAND :]
        story.tell(
            "caller", f"{name}: 5500 Hz {share(said, WIDEBAND, 5500) > 0.5}, 3000 {share(said, WIDEBAND, 3000) > 0.5}"
        )
        await esl.api(f"uuid_audio_fork {esl.uuid} stop {name}")
        await fork.closed.wait()
    await esl.run("playback", "tone_stream://%(300,0,440)")
    played = await listener.event("PLAYBACK_STOP")
    story.tell("codec", f"300 ms played: {played.get('variable_playback_samples')} samples")
    call.audio.play(high, WIDEBAND)
    message = story.name(str(rig.site.folder / "message.wav"), "MESSAGE")
    await esl.run("record", f"{message} 2")
    with wave.open(message) as wav:
        story.tell("codec", f"recorded: {wav.getframerate()} Hz, {wav.getnchannels()} channel")
    await call.hangup()
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def codec_changes(rig: Rig, story: Story) -> None:
    """What a re-INVITE may change the codec to, by itself and where absolute_codec_string holds it; static types only."""
    call, esl = await rig.answered(codecs=("PCMU", "G722"))
    orders = (("PCMU", "G722"), ("G722", "PCMU"), ("PCMA", "PCMU"), ("PCMU",))
    for held in ("", "PCMU,PCMA", ""):
        await esl.api(f"uuid_setvar {esl.uuid} absolute_codec_string {held}")
        for codecs in orders if not held else (*orders[1:], ("G722",)):
            code = (await call.offer_again(codecs)).code
            story.tell(f"held {held!r}", f"{' '.join(codecs)} -> {code} {call.codec}")
    await call.hangup()
    host = rig.edge.address
    for types, attributes in (
        ("9 0", ""),
        ("0 9", ""),
        ("9 0", "a=rtpmap:9 G722/8000\r\n"),
        ("9 0", "a=rtpmap:9 g722/8000/1\r\n"),
        ("9 0", "a=rtpmap:9 G722/16000\r\n"),
        ("96 0", "a=rtpmap:96 G722/8000\r\n"),
        ("96 8 0", "a=rtpmap:96 opus/48000/2\r\n"),
    ):
        body = (
            f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 40000 RTP/AVP {types}\r\n{attributes}"
        ).encode()
        call, esl = await rig.answered(body=body, codecs=("PCMU", "PCMA", "G722"))
        story.tell("offers", f"{types} {attributes.strip()} -> {await esl.api(f'uuid_getvar {esl.uuid} read_codec')}")
        await call.hangup()


WIDEBAND = 16000


def tone(hertz: int, seconds: float, rate: int = WIDEBAND) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hertz / rate * np.arange(int(seconds * rate)))).astype(np.int16)


def share(samples: np.ndarray, rate: int, hertz: int) -> float:
    """Of the energy, what lies within 50 Hz of ``hertz``."""
    spectrum = np.abs(np.fft.rfft(samples.astype(float))) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate)
    return float(spectrum[np.abs(frequencies - hertz) < 50].sum() / max(spectrum.sum(), 1.0))
