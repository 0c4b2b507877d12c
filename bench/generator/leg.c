/* A leg as the streaming mod_audio_fork makes it: metadata first, then one 20 ms L16 frame after the other at 8 kHz; binary
 * frames from the subject are what the caller hears. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <string.h>

/* A frame of each level, masked and with its header, ready for the wire. */
static struct {
	uint8_t bytes[14 + 2 * FRAME_SAMPLES];
	size_t length;
} frames[LEVELS];

int frame_level(const struct call *call, uint32_t frame)
{
	return (int)((call->id + frame) % LEVELS);
}

void leg_prepare(void)
{
	for (int level = 0; level < LEVELS; level++) {
		uint8_t *bytes = frames[level].bytes;
		size_t header = frame_header(bytes, OP_BINARY, 2 * FRAME_SAMPLES, true);
		for (int i = 0; i < FRAME_SAMPLES; i++) {
			bytes[header + 2 * (size_t)i] = (uint8_t)level_value(level);
			bytes[header + 2 * (size_t)i + 1] = (uint8_t)(level_value(level) >> 8);
		}
		frame_mask(bytes + header, 2 * FRAME_SAMPLES);
		frames[level].length = header + 2 * FRAME_SAMPLES;
	}
}

static void opened(struct connection *leg)
{
	connection_send(leg, OP_TEXT, leg->call->hello, strlen(leg->call->hello));
}

static bool is_level(const uint8_t *payload, size_t sample, int level)
{
	return level_of((int16_t)(payload[2 * sample] | payload[2 * sample + 1] << 8)) == level;
}

static void received(struct connection *leg, enum opcode opcode, uint8_t *payload, size_t length)
{
	struct call *call = leg->call;
	if (opcode == OP_TEXT) {
		if (memmem(payload, length, "killAudio", 9))
			statistics.kills += measuring;
		else if (memmem(payload, length, "model_lost", 10))
			call_failed(call, "the subject lost the model");
		return;
	}
	size_t samples = length / 2;
	call->response_bytes += length;
	if (call->awaited_level < 0 || !samples)
		return;
	if (is_level(payload, samples / 2, call->awaited_level) || is_level(payload, samples - 1, call->awaited_level)) {
		call->awaited_level = -1;
		if (measuring) {
			samples_add(&statistics.down, (double)(now_ns() - call->delta_at) / 1e6);
			statistics.responses_heard++;
		}
	}
}

static void closed(struct connection *leg, const char *why)
{
	call_failed(leg->call, why);
}

void leg_open(struct call *call, const char *host, int port, const char *path)
{
	call->leg = (struct connection){.fd = -1, .opened = opened, .received = received, .closed = closed, .call = call};
	connection_connect(&call->leg, host, port, path);
}

void leg_tick(struct call *call)
{
	if (!call->leg.is_open)
		return;
	/* Until the model heard the first frame it is repeated: what a subject drops while it connects is not a loss. */
	int level = frame_level(call, call->expected ? call->frame : 0);
	uint64_t overruns = call->leg.overruns;
	if (call->expected)
		call->sent_at[call->frame++ % IN_FLIGHT] = now_ns();
	connection_send_framed(&call->leg, frames[level].bytes, frames[level].length);
	if (measuring) {
		statistics.frames_sent++;
		statistics.overruns += call->leg.overruns - overruns;
	}
}
