/* A stand-in for the server of the OpenAI GA Realtime protocol, one session a call: it takes input_audio_buffer.append and
 * holds a conversation by the clock. In every cycle the caller speaks, then a response is spoken, its audio in deltas four
 * times faster than it plays; in every sixth cycle the caller interrupts while it still plays. */
#define _GNU_SOURCE
#include "load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The cycle, in ticks of 10 ms. */
#define SPEECH_STARTED 0
#define SPEECH_STOPPED 130
#define TRANSCRIBED 145
#define RESPONSE 150
#define FIRST_DELTA 170
#define DELTA_EVERY 5
#define DELTAS 9
#define RESPONSE_DONE 213
#define INTERRUPTED 260
#define CYCLE 400
#define INTERRUPT_EVERY 6
#define IDLE (-1)

#define DELTA_SAMPLES_8K (DELTA_MS * 8)
#define DELTA_SAMPLES_24K (DELTA_MS * 24)
#define RESPONSE_BYTES (DELTAS * DELTA_SAMPLES_8K * 2) /* as L16 at the leg */

static char deltas[2][LEVELS][DELTA_SAMPLES_24K * 2 * 4 / 3 + 4];
static struct model *unpaired;

void model_prepare(void)
{
	static uint8_t audio[DELTA_SAMPLES_24K * 2];
	for (int level = 0; level < LEVELS; level++) {
		for (int i = 0; i < DELTA_SAMPLES_24K; i++) {
			audio[2 * i] = (uint8_t)level_value(level);
			audio[2 * i + 1] = (uint8_t)(level_value(level) >> 8);
		}
		base64_encode(deltas[FORMAT_PCM24K][level], audio, sizeof audio);
		memset(audio, ulaw_encode(level_value(level)), DELTA_SAMPLES_8K);
		base64_encode(deltas[FORMAT_PCMU][level], audio, DELTA_SAMPLES_8K);
	}
}

static void say(struct model *model, const char *type, const char *format, ...)
{
	static char text[20000];
	int length = snprintf(text, sizeof text, "{\"type\":\"%s\",\"event_id\":\"event_%p%08x\"", type, (void *)model,
			      model->serial++);
	va_list arguments;
	va_start(arguments, format);
	length += vsnprintf(text + length, sizeof text - (size_t)length, format, arguments);
	va_end(arguments);
	text[length++] = '}';
	connection_send(&model->connection, OP_TEXT, text, (size_t)length);
}

static void say_session(struct model *model, const char *type)
{
	const char *format = model->format == FORMAT_PCMU ? "{\"type\":\"audio/pcmu\"}" : "{\"type\":\"audio/pcm\",\"rate\":24000}";
	say(model, type,
	    ",\"session\":{\"type\":\"realtime\",\"object\":\"realtime.session\",\"id\":\"sess_%p\",\"model\":\"gpt-realtime-2.1\","
	    "\"output_modalities\":[\"audio\"],\"instructions\":\"\",\"tools\":[],\"tool_choice\":\"auto\","
	    "\"max_output_tokens\":\"inf\",\"truncation\":\"auto\",\"audio\":{\"input\":{\"format\":%s,\"noise_reduction\":null,"
	    "\"transcription\":null,\"turn_detection\":{\"type\":\"server_vad\",\"threshold\":0.5,\"prefix_padding_ms\":300,"
	    "\"silence_duration_ms\":500,\"create_response\":true,\"interrupt_response\":true}},"
	    "\"output\":{\"format\":%s,\"voice\":\"marin\",\"speed\":1.0}}}",
	    (void *)model, format, format);
}

/* ---- what the subject says ---- */

static void heard_frame(struct call *call, int level)
{
	if (call->expected == 0) {
		if (level != frame_level(call, 0))
			return;
		call->expected = call->frame = 1;
		call_is_up(call);
		return;
	}
	if (call->expected == 1 && level == frame_level(call, 0))
		return;
	uint32_t lost = (uint32_t)(level - frame_level(call, call->expected) + LEVELS) % LEVELS;
	uint32_t frame = call->expected + lost;
	if (frame >= call->frame) {
		statistics.frames_garbled += measuring;
		return;
	}
	call->expected = frame + 1;
	if (!measuring)
		return;
	statistics.frames_lost += lost;
	statistics.frames_received++;
	bool remembered = call->frame - frame <= IN_FLIGHT;
	samples_add(&statistics.up, remembered ? (double)(now_ns() - call->sent_at[frame % IN_FLIGHT]) / 1e6
					       : (double)IN_FLIGHT * FRAME_MS);
}

static void append(struct model *model, const char *event, size_t length)
{
	struct call *call = model->connection.call;
	const char *audio = memmem(event, length, "\"audio\"", 7);
	const char *end = event + length;
	audio = audio ? memchr(audio + 7, '"', (size_t)(end - audio - 7)) : NULL;
	const char *quote = audio ? memchr(audio + 1, '"', (size_t)(end - audio - 1)) : NULL;
	if (!quote || !call) {
		statistics.frames_garbled += measuring && call;
		return;
	}
	audio++;
	size_t base64_length = (size_t)(quote - audio), sample_bytes = model->format == FORMAT_PCMU ? 1 : 2;
	size_t frame_samples = model->format == FORMAT_PCMU ? FRAME_SAMPLES : 3 * FRAME_SAMPLES;
	size_t samples = base64_length / 4 * 3 / sample_bytes;
	size_t count = (samples + frame_samples / 2) / frame_samples;
	for (size_t i = 0; i < count; i++) {
		size_t middle = (2 * i + 1) * samples / (2 * count) * sample_bytes;
		int low = base64_byte(audio, base64_length, middle);
		int high = sample_bytes == 2 ? base64_byte(audio, base64_length, middle + 1) : 0;
		if (low < 0 || high < 0) {
			statistics.frames_garbled += measuring;
			continue;
		}
		int level = level_of(sample_bytes == 1 ? ulaw_decode((uint8_t)low) : (int16_t)(low | high << 8));
		if (level < 0)
			statistics.frames_garbled += measuring;
		else
			heard_frame(call, level);
	}
}

static bool in_response(const struct model *model)
{
	return model->tick > RESPONSE && model->tick <= RESPONSE_DONE;
}

static bool is_event(const uint8_t *event, size_t length, const char *type)
{
	return memmem(event, length, type, strlen(type)) != NULL;
}

static void received(struct connection *connection, enum opcode opcode, uint8_t *event, size_t length)
{
	struct model *model = (struct model *)connection;
	size_t head = length < 128 ? length : 128;
	if (opcode != OP_TEXT)
		return;
	if (is_event(event, head, "input_audio_buffer.append")) {
		append(model, (const char *)event, length);
	} else if (is_event(event, length, "\"session.update\"")) {
		model->format = is_event(event, length, "audio/pcmu") ? FORMAT_PCMU : FORMAT_PCM24K;
		model->configured = true;
		say_session(model, "session.updated");
	} else if (is_event(event, length, "\"response.create\"")) {
		if (in_response(model))
			say(model, "error",
			    ",\"error\":{\"type\":\"invalid_request_error\",\"code\":\"conversation_already_has_active_response\","
			    "\"message\":\"Conversation already has an active response in progress.\",\"param\":null,"
			    "\"event_id\":null}");
		else
			model->tick = RESPONSE, model->asked = true;
	} else if (is_event(event, length, "\"conversation.item.truncate\"")) {
		const char *played = memmem(event, length, "\"audio_end_ms\"", 14);
		int ms = 0;
		if (played && sscanf(played + 14, "%*[: ]%d", &ms) == 1)
			statistics.truncates += measuring;
		say(model, "conversation.item.truncated",
		    ",\"item_id\":\"item_a%p%08x\",\"content_index\":0,\"audio_end_ms\":%d", (void *)model, model->responses, ms);
	}
}

/* ---- what the model says ---- */

static void speech_started(struct model *model)
{
	say(model, "input_audio_buffer.speech_started", ",\"item_id\":\"item_u%p%08x\",\"audio_start_ms\":%u", (void *)model,
	    model->cycles, model->connection.call->frame * FRAME_MS);
}

static void speech_stopped(struct model *model)
{
	unsigned ms = model->connection.call->frame * FRAME_MS;
	say(model, "input_audio_buffer.speech_stopped", ",\"item_id\":\"item_u%p%08x\",\"audio_end_ms\":%u", (void *)model,
	    model->cycles, ms);
	say(model, "input_audio_buffer.committed", ",\"item_id\":\"item_u%p%08x\",\"previous_item_id\":null", (void *)model,
	    model->cycles);
	for (int done = 0; done < 2; done++)
		say(model, done ? "conversation.item.done" : "conversation.item.added",
		    ",\"previous_item_id\":null,\"item\":{\"id\":\"item_u%p%08x\",\"object\":\"realtime.item\",\"type\":\"message\","
		    "\"status\":\"completed\",\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"transcript\":null}]}",
		    (void *)model, model->cycles);
}

static void transcribed(struct model *model)
{
	say(model, "conversation.item.input_audio_transcription.completed",
	    ",\"item_id\":\"item_u%p%08x\",\"content_index\":0,\"transcript\":\"What are your opening hours on Saturday?\","
	    "\"usage\":{\"type\":\"duration\",\"seconds\":2}",
	    (void *)model, model->cycles);
}

static void say_item(struct model *model, const char *type, const char *status, const char *content)
{
	bool of_conversation = type[0] == 'c';
	char place[64];
	snprintf(place, sizeof place, "\"response_id\":\"resp_%p%08x\",\"output_index\":0", (void *)model, model->responses);
	say(model, type,
	    ",%s,\"item\":{\"id\":\"item_a%p%08x\",\"object\":\"realtime.item\",\"type\":\"message\",\"status\":\"%s\","
	    "\"role\":\"assistant\",\"content\":[%s]}",
	    of_conversation ? "\"previous_item_id\":null" : place, (void *)model, model->responses, status, content);
}

static void say_part(struct model *model, const char *type, const char *more)
{
	say(model, type,
	    ",\"response_id\":\"resp_%p%08x\",\"item_id\":\"item_a%p%08x\",\"output_index\":0,\"content_index\":0%s", (void *)model,
	    model->responses, (void *)model, model->responses, more);
}

static void say_response(struct model *model, const char *type, const char *status, const char *usage)
{
	say(model, type,
	    ",\"response\":{\"id\":\"resp_%p%08x\",\"object\":\"realtime.response\",\"status\":\"%s\",\"status_details\":null,"
	    "\"output\":[],\"output_modalities\":[\"audio\"],\"conversation_id\":\"conv_%p\",\"max_output_tokens\":\"inf\","
	    "\"metadata\":null,\"usage\":%s}",
	    (void *)model, model->responses, status, (void *)model, usage);
}

#define TRANSCRIPT "We are open from nine in the morning to five in the afternoon, except on Sunday."

static void response_begins(struct model *model)
{
	model->responses++;
	say_response(model, "response.created", "in_progress", "null");
	say(model, "rate_limits.updated",
	    ",\"rate_limits\":[{\"name\":\"tokens\",\"limit\":1000000,\"remaining\":990000,\"reset_seconds\":0.1}]");
	say_item(model, "response.output_item.added", "in_progress", "");
	say_item(model, "conversation.item.added", "in_progress", "");
	say_part(model, "response.content_part.added", ",\"part\":{\"type\":\"audio\",\"transcript\":\"\"}");
}

static void delta(struct model *model, int index)
{
	static const char *const words[DELTAS] = {"We are", " open", " from nine in", " the morning", " to five", " in the",
						  " afternoon,", " except", " on Sunday."};
	static char audio[sizeof deltas[0][0] + 16];
	char transcript[64];
	struct call *call = model->connection.call;
	snprintf(transcript, sizeof transcript, ",\"delta\":\"%s\"", words[index]);
	say_part(model, "response.output_audio_transcript.delta", transcript);
	if (index == 0) {
		if (call->awaited_level >= 0)
			statistics.responses_silent += measuring;
		model->response_level = (int)((call->id + 3 * model->responses) % LEVELS);
		call->awaited_level = model->response_level;
		call->response_bytes = 0;
		statistics.responses_sent += measuring;
	}
	snprintf(audio, sizeof audio, ",\"delta\":\"%s\"", deltas[model->format][model->response_level]);
	if (index == 0)
		call->delta_at = now_ns();
	say_part(model, "response.output_audio.delta", audio);
}

static void response_ends(struct model *model)
{
	say_part(model, "response.output_audio.done", "");
	say_part(model, "response.output_audio_transcript.done", ",\"transcript\":\"" TRANSCRIPT "\"");
	say_part(model, "response.content_part.done", ",\"part\":{\"type\":\"audio\",\"transcript\":\"" TRANSCRIPT "\"}");
	const char *content = "{\"type\":\"output_audio\",\"transcript\":\"" TRANSCRIPT "\"}";
	say_item(model, "response.output_item.done", "completed", content);
	say_item(model, "conversation.item.done", "completed", content);
	say_response(model, "response.done", "completed",
		     "{\"total_tokens\":100,\"input_tokens\":60,\"output_tokens\":40,\"input_token_details\":{\"text_tokens\":20,"
		     "\"audio_tokens\":40,\"image_tokens\":0,\"cached_tokens\":0},"
		     "\"output_token_details\":{\"text_tokens\":10,\"audio_tokens\":30}}");
}

/* Calls are set up one after the other but talk independently: each begins somewhere else in the cycle. */
static int anywhere(struct model *model)
{
	int tick = (int)(model->connection.call->id * 2654435761u >> 8) % CYCLE;
	if (tick > RESPONSE && tick <= RESPONSE_DONE)
		return RESPONSE_DONE + 1;
	if (tick < RESPONSE) {
		speech_started(model);
		return tick < SPEECH_STOPPED ? tick + 1 : SPEECH_STOPPED;
	}
	return tick;
}

void model_tick(struct call *call)
{
	struct model *model = call->model;
	if (!call->is_up || !model || !model->connection.is_open)
		return;
	if (model->tick == IDLE)
		model->tick = anywhere(model);
	if (model->cycles == 0)
		model->cycles = call->id % INTERRUPT_EVERY + 1;
	switch (model->tick) {
	case SPEECH_STARTED:
		if (model->plays_out && call->response_bytes < RESPONSE_BYTES)
			statistics.responses_incomplete += measuring;
		model->plays_out = false;
		speech_started(model);
		break;
	case SPEECH_STOPPED:
		speech_stopped(model);
		break;
	case TRANSCRIBED:
		transcribed(model);
		break;
	case RESPONSE:
		response_begins(model);
		break;
	case RESPONSE_DONE:
		response_ends(model);
		model->plays_out = !model->asked;
		if (model->asked) {
			model->asked = false;
			model->tick = anywhere(model);
			return;
		}
		break;
	case INTERRUPTED:
		if (model->cycles % INTERRUPT_EVERY == INTERRUPT_EVERY - 1) {
			statistics.barge_ins += measuring;
			model->plays_out = false;
			model->tick = CYCLE - 1;
		}
		break;
	default:
		break;
	}
	int since = model->tick - FIRST_DELTA;
	if (since >= 0 && since % DELTA_EVERY == 0 && since / DELTA_EVERY < DELTAS)
		delta(model, since / DELTA_EVERY);
	if (++model->tick == CYCLE) {
		model->tick = SPEECH_STARTED;
		model->cycles++;
	}
}

/* ---- the connection ---- */

static void opened(struct connection *connection)
{
	say_session((struct model *)connection, "session.created");
}

static void closed(struct connection *connection, const char *why)
{
	struct model *model = (struct model *)connection;
	if (connection->call) {
		connection->call->model = NULL;
		call_failed(connection->call, why);
	}
	if (unpaired == model)
		unpaired = NULL;
	free(model);
}

void model_accept(int listener)
{
	struct model *model = calloc(1, sizeof *model);
	if (!model) {
		fprintf(stderr, "load: out of memory\n");
		exit(1);
	}
	model->connection = (struct connection){.fd = -1, .opened = opened, .received = received, .closed = closed};
	model->tick = IDLE;
	if (unpaired) {
		fprintf(stderr, "load: the subject opened two sessions for one call\n");
		exit(1);
	}
	unpaired = model;
	connection_accept(&model->connection, listener);
	pair();
}

struct model *model_take(void)
{
	struct model *model = unpaired;
	unpaired = NULL;
	return model;
}
