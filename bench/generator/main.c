/* The loop: a clock of 250 us slots that spreads the calls' frames evenly over 20 ms, and commands on stdin.
 *
 *     load MODEL_ADDRESS MODEL_PORT
 *     open HOST PORT PATH HELLO   -> up | failed WHY      one call; the next is opened when this one is up
 *     measure MS                  -> one line of JSON
 *     (end of input)              closes the calls and exits
 *
 * Calls are opened one at a time, because that is what tells which Realtime session belongs to which leg.
 */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_CALLS 4096
#define SLOTS 80
#define SLOT_NS (FRAME_MS * 1000000u / SLOTS)
#define SLOT_STRIDE 37 /* coprime to SLOTS: consecutive calls lie far apart */
#define TICK_SLOTS (SLOTS / 2) /* a model's tick is 10 ms, a quarter of a frame away from the leg's frame */
#define MAX_EVENTS 32
#define OPEN_WITHIN_NS 10000000000u
#define STALL_NS (FRAME_MS * 1000000u)

int load_epoll;

static struct call *calls[MAX_CALLS];
static int call_count;
static struct call *opening;
static uint64_t opening_since, measure_until, measure_began;
static double cpu_began;

static double cpu_s(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void answer(const char *line)
{
	puts(line);
	fflush(stdout);
}

void pair(void)
{
	struct model *model = opening && !opening->model ? model_take() : NULL;
	if (model) {
		model->connection.call = opening;
		opening->model = model;
	}
}

void call_is_up(struct call *call)
{
	call->is_up = true;
	if (call == opening) {
		opening = NULL;
		answer("up");
	}
}

void call_failed(struct call *call, const char *why)
{
	connection_close(&call->leg);
	fprintf(stderr, "load: call %u: %s\n", call->id, why);
	if (call == opening) {
		char line[256];
		snprintf(line, sizeof line, "failed %s", why);
		opening = NULL;
		answer(line);
	} else {
		statistics.closed++;
	}
	call->is_up = false;
}

static void command_open(const char *arguments)
{
	char host[64], path[512];
	int port, used = 0;
	struct call *call = calloc(1, sizeof *call);
	if (!call || call_count == MAX_CALLS || opening ||
	    sscanf(arguments, "%63s %d %511s %n", host, &port, path, &used) < 3 || !used ||
	    strlen(arguments + used) >= sizeof call->hello) {
		free(call);
		answer("failed bad command, too many calls, or one is being opened");
		return;
	}
	call->id = (uint32_t)call_count;
	call->awaited_level = -1;
	strcpy(call->hello, arguments + used);
	calls[call_count++] = call;
	opening = call;
	opening_since = now_ns();
	pair();
	leg_open(call, host, port, path);
}

static void command_measure(const char *arguments)
{
	statistics_reset();
	measure_began = now_ns();
	measure_until = measure_began + strtoull(arguments, NULL, 10) * 1000000u;
	cpu_began = cpu_s();
	measuring = true;
}

static void measure_ends(uint64_t now)
{
	int up = 0;
	for (int i = 0; i < call_count; i++)
		up += calls[i]->is_up;
	measuring = false;
	statistics_print((double)(now - measure_began) / 1e9, cpu_s() - cpu_began, up);
}

/* Returns false at the end of input. */
static bool read_commands(void)
{
	static char text[8192];
	static size_t length;
	ssize_t got = read(STDIN_FILENO, text + length, sizeof text - 1 - length);
	if (got <= 0)
		return got < 0 && errno == EAGAIN;
	length += (size_t)got;
	text[length] = 0;
	char *line = text;
	for (char *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		if (!strncmp(line, "open ", 5))
			command_open(line + 5);
		else if (!strncmp(line, "measure ", 8))
			command_measure(line + 8);
		else
			answer("failed unknown command");
	}
	length -= (size_t)(line - text);
	memmove(text, line, length);
	return length < sizeof text - 1;
}

static int first_of_slot[SLOTS];

static void run_slot(unsigned slot)
{
	for (int i = first_of_slot[slot]; i < call_count; i += SLOTS)
		leg_tick(calls[i]);
	for (unsigned quarter = SLOTS / 4; quarter < SLOTS; quarter += TICK_SLOTS)
		for (int i = first_of_slot[(slot + quarter) % SLOTS]; i < call_count; i += SLOTS)
			model_tick(calls[i]);
}

/* Runs the slots that are due and arms the timer for the next one. */
static void run_clock(int timer)
{
	static uint64_t due;
	static unsigned slot;
	uint64_t now = now_ns();
	if (!due || now > due + STALL_NS) {
		statistics.stalls += due && measuring;
		due = now;
	}
	while (due <= now) {
		if (measuring)
			samples_add(&statistics.lateness, (double)(now - due) / 1e6);
		run_slot(slot);
		slot = (slot + 1) % SLOTS;
		due += SLOT_NS;
		now = now_ns();
	}
	struct itimerspec at = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
	if (opening && now - opening_since > OPEN_WITHIN_NS)
		call_failed(opening, "the first frame did not reach the model in time");
	if (measuring && now >= measure_until)
		measure_ends(now);
}

static void watch(int fd)
{
	static int tags[3];
	static int used;
	tags[used] = fd;
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &tags[used++]};
	if (epoll_ctl(load_epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
		perror("load: epoll_ctl");
		exit(1);
	}
}

static int listen_at(const char *address, int port)
{
	struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (inet_pton(AF_INET, address, &place.sin_addr) != 1 ||
	    bind(listener, (struct sockaddr *)&place, sizeof place) < 0 || listen(listener, 128) < 0) {
		fprintf(stderr, "load: cannot listen at %s:%d: %s\n", address, port, strerror(errno));
		exit(1);
	}
	return listener;
}

int main(int count, char **arguments)
{
	if (count != 3) {
		fprintf(stderr, "usage: load MODEL_ADDRESS MODEL_PORT\n");
		return 2;
	}
	load_epoll = epoll_create1(EPOLL_CLOEXEC);
	leg_prepare();
	model_prepare();
	for (int call = 0; call < SLOTS; call++)
		first_of_slot[call * SLOT_STRIDE % SLOTS] = call;
	int listener = listen_at(arguments[1], atoi(arguments[2]));
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
	watch(listener);
	watch(timer);
	watch(STDIN_FILENO);
	answer("ready");
	run_clock(timer);
	for (bool more = true; more;) {
		struct epoll_event events[MAX_EVENTS];
		int ready = epoll_wait(load_epoll, events, MAX_EVENTS, -1);
		for (int i = 0; i < ready; i++) {
			/* The loop's own descriptors are plain numbers; a connection begins with its own. */
			int fd = *(int *)events[i].data.ptr;
			if (fd == listener)
				model_accept(listener);
			else if (fd == STDIN_FILENO)
				more = read_commands();
			else if (fd != timer && fd >= 0)
				connection_ready(events[i].data.ptr, events[i].events);
		}
		run_clock(timer);
	}
	for (int i = 0; i < call_count; i++) {
		if (calls[i]->leg.fd >= 0)
			connection_send(&calls[i]->leg, OP_CLOSE, "\x03\xe8", 2);
		connection_close(&calls[i]->leg);
	}
	return 0;
}
