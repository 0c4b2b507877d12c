/* Marked audio and its codings: levels, G.711 mu-law (ITU-T G.711), base64 (RFC 4648), SHA-1 (RFC 3174, for the handshake). */
#include "load.h"

#include <string.h>

#define FIRST_LEVEL 1000
#define LEVEL_STEP 2000
#define LEVEL_TOLERANCE 700 /* mu-law's coarsest step is 1024, so it errs by 512 at most */

int16_t level_value(int level)
{
	return (int16_t)(FIRST_LEVEL + LEVEL_STEP * level);
}

int level_of(int16_t sample)
{
	int level = (sample - FIRST_LEVEL + LEVEL_STEP / 2) / LEVEL_STEP;
	int error = sample - (FIRST_LEVEL + LEVEL_STEP * level);
	return sample > 0 && level < LEVELS && error <= LEVEL_TOLERANCE && error >= -LEVEL_TOLERANCE ? level : -1;
}

uint8_t ulaw_encode(int16_t sample)
{
	int magnitude = sample < 0 ? -sample : sample;
	int segment = 7;
	magnitude = (magnitude > 32635 ? 32635 : magnitude) + 132;
	while (segment > 0 && !(magnitude & (0x80 << segment)))
		segment--;
	return (uint8_t)~((sample < 0 ? 0x80 : 0) | segment << 4 | (magnitude >> (segment + 3) & 0x0f));
}

int16_t ulaw_decode(uint8_t code)
{
	code = (uint8_t)~code;
	int magnitude = ((((code & 0x0f) << 3) + 132) << (code >> 4 & 7)) - 132;
	return (int16_t)(code & 0x80 ? -magnitude : magnitude);
}

static const char base64_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encode(char *to, const uint8_t *from, size_t length)
{
	char *start = to;
	for (size_t i = 0; i < length; i += 3) {
		uint32_t group = (uint32_t)from[i] << 16;
		if (i + 1 < length)
			group |= (uint32_t)from[i + 1] << 8;
		if (i + 2 < length)
			group |= from[i + 2];
		*to++ = base64_alphabet[group >> 18];
		*to++ = base64_alphabet[group >> 12 & 63];
		*to++ = i + 1 < length ? base64_alphabet[group >> 6 & 63] : '=';
		*to++ = i + 2 < length ? base64_alphabet[group & 63] : '=';
	}
	return (size_t)(to - start);
}

static int base64_value(char character)
{
	if (character >= 'A' && character <= 'Z')
		return character - 'A';
	if (character >= 'a' && character <= 'z')
		return character - 'a' + 26;
	if (character >= '0' && character <= '9')
		return character - '0' + 52;
	return character == '+' ? 62 : character == '/' ? 63 : -1;
}

int base64_byte(const char *text, size_t text_length, size_t index)
{
	size_t place = index / 3 * 4 + index % 3;
	if (place + 1 >= text_length)
		return -1;
	int first = base64_value(text[place]), second = base64_value(text[place + 1]);
	if (first < 0 || second < 0)
		return -1;
	switch (index % 3) {
	case 0:
		return (first << 2 | second >> 4) & 255;
	case 1:
		return (first << 4 | second >> 2) & 255;
	default:
		return (first << 6 | second) & 255;
	}
}

static uint32_t rotate(uint32_t word, int bits)
{
	return word << bits | word >> (32 - bits);
}

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
	uint32_t w[80];
	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
		       block[4 * i + 3];
	for (int i = 16; i < 80; i++)
		w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
	for (int i = 0; i < 80; i++) {
		uint32_t f, k;
		if (i < 20)
			f = (b & c) | (~b & d), k = 0x5a827999;
		else if (i < 40)
			f = b ^ c ^ d, k = 0x6ed9eba1;
		else if (i < 60)
			f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
		else
			f = b ^ c ^ d, k = 0xca62c1d6;
		uint32_t next = rotate(a, 5) + f + e + k + w[i];
		e = d, d = c, c = rotate(b, 30), b = a, a = next;
	}
	state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

void sha1(uint8_t digest[20], const uint8_t *data, size_t length)
{
	uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
	uint8_t block[64];
	uint64_t bits = (uint64_t)length * 8;
	for (; length >= 64; data += 64, length -= 64)
		sha1_block(state, data);
	memset(block, 0, sizeof block);
	memcpy(block, data, length);
	block[length] = 0x80;
	if (length >= 56) {
		sha1_block(state, block);
		memset(block, 0, sizeof block);
	}
	for (int i = 0; i < 8; i++)
		block[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
	sha1_block(state, block);
	for (int i = 0; i < 20; i++)
		digest[i] = (uint8_t)(state[i / 4] >> (24 - i % 4 * 8));
}
