// The usual sketch, in Node: a ws server for mod_audio_fork, a ws client to the Realtime model.
// 8 kHz L16 is resampled to the model's 24 kHz PCM; each delta is resampled back and sent at once.
'use strict';

const http = require('http');
const { WebSocket, WebSocketServer } = require('ws');

const MODEL_URL = process.env.MODEL_URL;
const HOST = process.argv[2];
const PORT = Number(process.argv[3]);

function resample(pcm, sourceRate, targetRate) {
  // Copied, because a Buffer's bytes need not be aligned for 16-bit samples.
  const input = new Int16Array(pcm.buffer.slice(pcm.byteOffset, pcm.byteOffset + pcm.length));
  const output = new Int16Array(Math.floor((input.length * targetRate) / sourceRate));
  const step = sourceRate / targetRate;
  for (let i = 0; i < output.length; i++) {
    const position = i * step;
    const left = Math.floor(position);
    const right = Math.min(left + 1, input.length - 1);
    output[i] = input[left] + (input[right] - input[left]) * (position - left);
  }
  return Buffer.from(output.buffer);
}

const server = http.createServer((request, response) => {
  response.writeHead(request.url === '/healthz' ? 200 : 404);
  response.end();
});

const wss = new WebSocketServer({ server, path: '/fork' });

wss.on('connection', (call) => {
  const model = new WebSocket(MODEL_URL, { headers: { Authorization: 'Bearer bench' } });

  model.on('open', () => {
    const format = { type: 'audio/pcm', rate: 24000 };
    model.send(JSON.stringify({
      type: 'session.update',
      session: {
        type: 'realtime',
        output_modalities: ['audio'],
        instructions: 'You are a helpful assistant.',
        audio: {
          input: { format, turn_detection: { type: 'server_vad' } },
          output: { format, voice: 'marin' },
        },
      },
    }));
    model.send(JSON.stringify({ type: 'response.create' }));
  });

  call.on('message', (data, isBinary) => {
    if (isBinary && model.readyState === WebSocket.OPEN) {
      const audio = resample(data, 8000, 24000).toString('base64');
      model.send(JSON.stringify({ type: 'input_audio_buffer.append', audio }));
    }
  });

  model.on('message', (data) => {
    const event = JSON.parse(data);
    if (event.type === 'response.output_audio.delta') {
      call.send(resample(Buffer.from(event.delta, 'base64'), 24000, 8000));
    } else if (event.type === 'input_audio_buffer.speech_started') {
      call.send(JSON.stringify({ type: 'killAudio' }));
    }
  });

  call.on('close', () => model.close());
  model.on('close', () => call.close());
  call.on('error', (error) => console.error('call:', error.message));
  model.on('error', (error) => console.error('model:', error.message));
});

server.listen(PORT, HOST);
