"""The usual sketch, in Python: a FastAPI WebSocket endpoint for mod_audio_fork, ``websockets`` to the Realtime model.

As such sketches do it: 8 kHz L16 is resampled to the model's 24 kHz PCM with numpy, JSON and base64 come from the
standard library, and each delta is resampled back and sent at once. uvicorn takes uvloop where it is installed.
"""

import argparse
import asyncio
import base64
import json
import os

import numpy as np
import uvicorn
import websockets
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

MODEL_URL = os.environ["MODEL_URL"]

app = FastAPI()


def resample(pcm: bytes, source_rate: int, target_rate: int) -> bytes:
    samples = np.frombuffer(pcm, dtype=np.int16)
    count = len(samples) * target_rate // source_rate
    positions = np.arange(count) * (source_rate / target_rate)
    resampled: bytes = np.interp(positions, np.arange(len(samples)), samples).astype(np.int16).tobytes()
    return resampled


async def caller_to_model(call: WebSocket, model: websockets.ClientConnection) -> None:
    while True:
        message = await call.receive()
        if message["type"] == "websocket.disconnect":
            return
        pcm = message.get("bytes")
        if pcm:
            audio = base64.b64encode(resample(pcm, 8000, 24000)).decode("ascii")
            await model.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))


async def model_to_caller(call: WebSocket, model: websockets.ClientConnection) -> None:
    async for message in model:
        event = json.loads(message)
        if event["type"] == "response.output_audio.delta":
            await call.send_bytes(resample(base64.b64decode(event["delta"]), 24000, 8000))
        elif event["type"] == "input_audio_buffer.speech_started":
            await call.send_text(json.dumps({"type": "killAudio"}))


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.websocket("/fork")
async def fork(call: WebSocket) -> None:
    await call.accept()
    async with websockets.connect(MODEL_URL, additional_headers={"Authorization": "Bearer bench"}) as model:
        pcm = {"type": "audio/pcm", "rate": 24000}
        session = {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": "You are a helpful assistant.",
            "audio": {
                "input": {"format": pcm, "turn_detection": {"type": "server_vad"}},
                "output": {"format": pcm, "voice": "marin"},
            },
        }
        await model.send(json.dumps({"type": "session.update", "session": session}))
        await model.send(json.dumps({"type": "response.create"}))
        tasks = [
            asyncio.create_task(caller_to_model(call, model)),
            asyncio.create_task(model_to_caller(call, model)),
        ]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            try:
                task.result()
            except (WebSocketDisconnect, websockets.ConnectionClosed) as error:
                print("call ended:", error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning", access_log=False)
