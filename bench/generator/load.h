/* The bench's load: N calls, each a mod_audio_fork-like leg and the Realtime session that the subject opens for it.
 *
 * Both ends of every call live in this one process, so that the delay a subject adds is the difference of two readings of
 * one CLOCK_MONOTONIC. Audio is marked by its content: each 20 ms frame is one constant sample value out of LEVELS, which
 * survives G.711, resampling and base64, and says which frame arrived.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEVELS 16
#define FRAME_MS 20
#define FRAME_SAMPLES 160 /* 8 kHz */
#define DELTA_MS 200
#define IN_FLIGHT 256 /* frames remembered between leg and model, 5 s */

/* ---- connection.c: one non-blocking WebSocket, either side ---- */

enum opcode { OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

struct call;
struct connection;
typedef void (*on_open)(struct connection *);
typedef void (*on_message)(struct connection *, enum opcode, uint8_t *payload, size_t length);
typedef void (*on_close)(struct connection *, const char *why);

struct connection {
	int fd; /* -1 when closed */
	bool is_client; /* masks what it sends */
	bool is_open; /* handshake done */
	bool wants_write;
	int send_error;
	uint8_t *in, *out;
	size_t in_length, in_size, out_length, out_size;
	uint64_t overruns; /* frames dropped because the peer did not read */
	on_open opened;
	on_message received;
	on_close closed;
	struct call *call;
};

void connection_connect(struct connection *, const char *host, int port, const char *path);
void connection_accept(struct connection *, int listener);
/* Reads, writes and parses what epoll reported. */
void connection_ready(struct connection *, uint32_t events);
/* One frame. bytes must be unmasked; a client's are masked here. */
void connection_send(struct connection *, enum opcode, const void *bytes, size_t length);
/* A frame that already has its header (and mask); whole or not at all. */
void connection_send_framed(struct connection *, const void *bytes, size_t length);
void connection_close(struct connection *);
/* Header of a frame; with a mask key when masked. Returns its length (at most 14). */
size_t frame_header(uint8_t *header, enum opcode, size_t length, bool masked);
void frame_mask(uint8_t *bytes, size_t length);

/* ---- audio.c ---- */

int16_t level_value(int level);
/* The level nearest to a sample, or -1 when it is nobody's. */
int level_of(int16_t sample);
uint8_t ulaw_encode(int16_t sample);
int16_t ulaw_decode(uint8_t code);
size_t base64_encode(char *to, const uint8_t *from, size_t length);
/* Byte `index` of the data that base64 text stands for; -1 when that is not base64. */
int base64_byte(const char *text, size_t text_length, size_t index);
void sha1(uint8_t digest[20], const uint8_t *data, size_t length);

/* ---- statistics.c ---- */

struct samples {
	float *values; /* ms */
	size_t count, size;
};

struct statistics {
	struct samples up, down, lateness;
	uint64_t frames_sent, frames_received, frames_lost, frames_garbled;
	uint64_t responses_sent, responses_heard, responses_silent, responses_incomplete;
	uint64_t barge_ins, kills, truncates;
	uint64_t overruns, stalls, closed;
};

extern struct statistics statistics;
extern bool measuring;

uint64_t now_ns(void);
void samples_add(struct samples *, double ms);
void statistics_reset(void);
/* One line of JSON on stdout. */
void statistics_print(double wall_s, double cpu_s, int calls);

/* ---- leg.c and model.c: the two ends of a call ---- */

enum format { FORMAT_PCM24K, FORMAT_PCMU };

struct model {
	struct connection connection;
	enum format format;
	bool configured;
	uint32_t serial;
	int tick; /* place in the conversation's cycle, in ticks of 10 ms */
	bool asked; /* by response.create: a greeting, before the conversation takes its own course */
	bool plays_out; /* the last response is not interrupted: all of it must have reached the leg in the end */
	uint32_t responses; /* begun */
	uint32_t cycles;
	int response_level;
};

struct call {
	uint32_t id;
	bool is_up;
	struct connection leg;
	struct model *model;
	char hello[1024];
	/* Upward. Until the model has heard the first frame, that one frame is repeated. */
	uint32_t frame; /* number of the next frame */
	uint32_t expected; /* the next frame that the model has not heard */
	uint64_t sent_at[IN_FLIGHT];
	/* Downward: one response at a time. */
	int awaited_level; /* -1: heard */
	uint64_t delta_at;
	size_t response_bytes; /* L16 that reached the leg since this response began */
};

int frame_level(const struct call *, uint32_t frame);
void leg_prepare(void);
void leg_open(struct call *, const char *host, int port, const char *path);
void leg_tick(struct call *);

void model_prepare(void);
void model_accept(int listener);
/* The session that the subject opened and no leg has yet; NULL when there is none. */
struct model *model_take(void);
void model_tick(struct call *);

/* ---- main.c ---- */

extern int load_epoll;
/* Both ends are there and the first frame went through. */
void call_is_up(struct call *);
void call_failed(struct call *, const char *why);
/* A session was opened, or a call waits for one. */
void pair(void);

#endif
