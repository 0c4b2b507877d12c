/* One non-blocking WebSocket (RFC 6455) over TCP, as client or server, as much of it as the two ends of a call need. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 65536
#define MAX_IN (4u << 20)
#define MAX_OUT (1u << 20) /* what a peer that does not read may leave here; 2 s of audio is far less */

static const uint8_t mask_key[4] = {0x37, 0xfa, 0x21, 0x3d};

static void watch(struct connection *connection, int operation)
{
	struct epoll_event event = {
		.events = EPOLLIN | (connection->wants_write ? (uint32_t)EPOLLOUT : 0u),
		.data.ptr = connection,
	};
	if (epoll_ctl(load_epoll, operation, connection->fd, &event) < 0) {
		perror("epoll_ctl");
		exit(1);
	}
}

static void write_later(struct connection *connection, bool later)
{
	if (connection->wants_write != later) {
		connection->wants_write = later;
		watch(connection, EPOLL_CTL_MOD);
	}
}

static void fail(struct connection *connection, const char *why)
{
	connection_close(connection);
	connection->closed(connection, why);
}

void connection_close(struct connection *connection)
{
	if (connection->fd < 0)
		return;
	epoll_ctl(load_epoll, EPOLL_CTL_DEL, connection->fd, NULL);
	close(connection->fd);
	free(connection->in);
	free(connection->out);
	connection->in = connection->out = NULL;
	connection->in_length = connection->in_size = connection->out_length = connection->out_size = 0;
	connection->fd = -1;
	connection->is_open = false;
}

static void no_delay(int fd)
{
	int on = 1;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
		perror("TCP_NODELAY");
}

void connection_connect(struct connection *connection, const char *host, int port, const char *path)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	connection->is_client = true;
	connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connection->fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1) {
		connection->closed(connection, "no socket, or not an IPv4 address");
		return;
	}
	no_delay(connection->fd);
	connection->wants_write = false;
	watch(connection, EPOLL_CTL_ADD);
	if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
		fail(connection, strerror(errno));
		return;
	}
	/* As libwebsockets writes it for mod_audio_fork. The fixed key's answer is not checked: that is not what is measured. */
	char request[1024];
	int length = snprintf(request, sizeof request,
			      "GET %s HTTP/1.1\r\nPragma: no-cache\r\nCache-Control: no-cache\r\nHost: %s\r\n"
			      "Origin: http://%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
			      "Sec-WebSocket-Protocol: audio.drachtio.org\r\nSec-WebSocket-Version: 13\r\n\r\n",
			      path, host, host);
	if (length < 0 || (size_t)length >= sizeof request) {
		fail(connection, "the path is too long");
		return;
	}
	connection_send_framed(connection, request, (size_t)length);
}

void connection_accept(struct connection *connection, int listener)
{
	connection->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (connection->fd < 0) {
		connection->closed(connection, strerror(errno));
		return;
	}
	no_delay(connection->fd);
	watch(connection, EPOLL_CTL_ADD);
}

static bool reserve(uint8_t **buffer, size_t *size, size_t wanted)
{
	if (wanted <= *size)
		return true;
	size_t larger = *size ? *size : 4096;
	while (larger < wanted)
		larger *= 2;
	uint8_t *grown = realloc(*buffer, larger);
	if (!grown)
		return false;
	*buffer = grown;
	*size = larger;
	return true;
}

void connection_send_framed(struct connection *connection, const void *bytes, size_t length)
{
	size_t sent = 0;
	if (connection->fd < 0)
		return;
	if (!connection->out_length) {
		ssize_t written = send(connection->fd, bytes, length, MSG_NOSIGNAL);
		if (written < 0 && errno != EAGAIN && errno != EINPROGRESS && errno != ENOTCONN) {
			/* epoll reports it too, where it can be handled, but the reason is told only once. */
			connection->send_error = errno;
			return;
		}
		sent = written > 0 ? (size_t)written : 0;
	}
	if (sent == length)
		return;
	size_t wanted = connection->out_length + length - sent;
	if ((!sent && wanted > MAX_OUT) || !reserve(&connection->out, &connection->out_size, wanted)) {
		connection->overruns++;
		return;
	}
	memcpy(connection->out + connection->out_length, (const uint8_t *)bytes + sent, length - sent);
	connection->out_length = wanted;
	write_later(connection, true);
}

size_t frame_header(uint8_t *header, enum opcode opcode, size_t length, bool masked)
{
	size_t used = 2;
	header[0] = (uint8_t)(0x80 | opcode);
	if (length < 126) {
		header[1] = (uint8_t)length;
	} else if (length < 65536) {
		header[1] = 126;
		header[2] = (uint8_t)(length >> 8);
		header[3] = (uint8_t)length;
		used = 4;
	} else {
		header[1] = 127;
		for (int i = 0; i < 8; i++)
			header[2 + i] = (uint8_t)((uint64_t)length >> (56 - 8 * i));
		used = 10;
	}
	if (masked) {
		header[1] |= 0x80;
		memcpy(header + used, mask_key, 4);
		used += 4;
	}
	return used;
}

static void unmask(uint8_t *bytes, size_t length, const uint8_t key[4])
{
	uint64_t wide;
	uint32_t narrow;
	memcpy(&narrow, key, 4);
	const uint64_t key_wide = (uint64_t)narrow << 32 | narrow;
	size_t i = 0;
	for (; i + 8 <= length; i += 8) {
		memcpy(&wide, bytes + i, 8);
		wide ^= key_wide;
		memcpy(bytes + i, &wide, 8);
	}
	for (; i < length; i++)
		bytes[i] ^= key[i & 3];
}

void frame_mask(uint8_t *bytes, size_t length)
{
	unmask(bytes, length, mask_key);
}

void connection_send(struct connection *connection, enum opcode opcode, const void *bytes, size_t length)
{
	static uint8_t frame[32768];
	if (length + 14 > sizeof frame) {
		fprintf(stderr, "load: a frame of %zu bytes is too long to send\n", length);
		exit(1);
	}
	size_t header = frame_header(frame, opcode, length, connection->is_client);
	memcpy(frame + header, bytes, length);
	if (connection->is_client)
		frame_mask(frame + header, length);
	connection_send_framed(connection, frame, header + length);
}

/* The line of an HTTP head that begins with `name`, its value without the white space around it. */
static bool header_value(const char *head, const char *name, char *value, size_t size)
{
	size_t name_length = strlen(name);
	for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, name_length) || line[name_length] != ':')
			continue;
		line += name_length + 1;
		line += strspn(line, " \t");
		size_t length = strcspn(line, " \t\r\n");
		if (length >= size)
			return false;
		memcpy(value, line, length);
		value[length] = 0;
		return true;
	}
	return false;
}

static const char *handshake(struct connection *connection, size_t head_length)
{
	char *head = (char *)connection->in, key[128], joined[256], accept[64], reply[512];
	head[head_length - 2] = 0; /* the blank line's CRLF makes room for the end of the string */
	if (connection->is_client)
		return strncmp(head, "HTTP/1.1 101", 12) ? "the WebSocket was refused" : NULL;
	if (!header_value(head, "Sec-WebSocket-Key", key, sizeof key))
		return "no WebSocket key";
	uint8_t digest[20];
	int length = snprintf(joined, sizeof joined, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
	sha1(digest, (uint8_t *)joined, (size_t)length);
	accept[base64_encode(accept, digest, sizeof digest)] = 0;
	length = snprintf(reply, sizeof reply,
			  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			  "Sec-WebSocket-Accept: %s\r\n\r\n",
			  accept);
	connection_send_framed(connection, reply, (size_t)length);
	return NULL;
}

/* Parses one frame at `at`; returns the bytes it took, 0 when it is not all there, and -1 when the connection is gone. */
static ssize_t parse_frame(struct connection *connection, size_t at)
{
	uint8_t *bytes = connection->in + at;
	size_t there = connection->in_length - at, header = 2;
	if (there < 2)
		return 0;
	size_t length = bytes[1] & 0x7f;
	if (length == 126) {
		header = 4;
		if (there < header)
			return 0;
		length = (size_t)bytes[2] << 8 | bytes[3];
	} else if (length == 127) {
		header = 10;
		if (there < header)
			return 0;
		length = 0;
		for (int i = 0; i < 8; i++)
			length = length << 8 | bytes[2 + i];
	}
	bool masked = bytes[1] & 0x80;
	header += masked ? 4 : 0;
	if (length > MAX_IN || !(bytes[0] & 0x80) || bytes[0] & 0x70) {
		fail(connection, "a frame that is too long, fragmented or compressed");
		return -1;
	}
	if (there < header + length)
		return 0;
	uint8_t *payload = bytes + header;
	if (masked)
		unmask(payload, length, payload - 4);
	enum opcode opcode = bytes[0] & 0x0f;
	if (opcode == OP_PING) {
		connection_send(connection, OP_PONG, payload, length);
	} else if (opcode == OP_CLOSE) {
		connection_send(connection, OP_CLOSE, payload, length < 2 ? 0 : 2);
		fail(connection, "closed by the subject");
		return -1;
	} else if (opcode == OP_TEXT || opcode == OP_BINARY) {
		connection->received(connection, opcode, payload, length);
		if (connection->fd < 0)
			return -1;
	}
	return (ssize_t)(header + length);
}

static void parse(struct connection *connection)
{
	size_t at = 0;
	if (!connection->is_open) {
		uint8_t *end = memmem(connection->in, connection->in_length, "\r\n\r\n", 4);
		if (!end)
			return;
		at = (size_t)(end - connection->in) + 4;
		const char *problem = handshake(connection, at);
		if (problem) {
			fail(connection, problem);
			return;
		}
		connection->is_open = true;
		connection->opened(connection);
		if (connection->fd < 0)
			return;
	}
	ssize_t taken;
	while ((taken = parse_frame(connection, at)) > 0)
		at += (size_t)taken;
	if (taken < 0)
		return;
	connection->in_length -= at;
	memmove(connection->in, connection->in + at, connection->in_length);
}

void connection_ready(struct connection *connection, uint32_t events)
{
	if (events & EPOLLOUT && connection->out_length) {
		ssize_t written = send(connection->fd, connection->out, connection->out_length, MSG_NOSIGNAL);
		if (written < 0 && errno != EAGAIN) {
			fail(connection, strerror(errno));
			return;
		}
		if (written > 0) {
			connection->out_length -= (size_t)written;
			memmove(connection->out, connection->out + written, connection->out_length);
		}
	}
	if (events & EPOLLOUT && !connection->out_length)
		write_later(connection, false);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (!reserve(&connection->in, &connection->in_size, connection->in_length + READ_SIZE / 16)) {
		fail(connection, "out of memory");
		return;
	}
	ssize_t got = recv(connection->fd, connection->in + connection->in_length,
			   connection->in_size - connection->in_length, 0);
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		int error = connection->send_error ? connection->send_error : got ? errno : 0;
		fail(connection, error ? strerror(error) : "connection lost");
		return;
	}
	connection->in_length += (size_t)got;
	parse(connection);
}
