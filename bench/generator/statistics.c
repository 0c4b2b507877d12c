/* What was measured, kept whole (percentiles are exact) and printed as one line of JSON. */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_SAMPLES (8u << 20)

struct statistics statistics;
bool measuring;

uint64_t now_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

void samples_add(struct samples *samples, double ms)
{
	if (samples->count == samples->size) {
		size_t size = samples->size ? samples->size * 2 : 65536;
		float *values = size > MAX_SAMPLES ? NULL : realloc(samples->values, size * sizeof *values);
		if (!values) {
			fprintf(stderr, "load: more than %u samples in one measurement\n", MAX_SAMPLES);
			exit(1);
		}
		samples->values = values;
		samples->size = size;
	}
	samples->values[samples->count++] = (float)ms;
}

void statistics_reset(void)
{
	struct samples up = statistics.up, down = statistics.down, lateness = statistics.lateness;
	memset(&statistics, 0, sizeof statistics);
	statistics.up = up, statistics.down = down, statistics.lateness = lateness;
	statistics.up.count = statistics.down.count = statistics.lateness.count = 0;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static double quantile(const struct samples *sorted, double part)
{
	return sorted->count ? (double)sorted->values[(size_t)(part * (double)(sorted->count - 1))] : 0;
}

static void samples_print(const char *name, struct samples *samples)
{
	qsort(samples->values, samples->count, sizeof *samples->values, by_value);
	printf("\"%s\":{\"count\":%zu,\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"p999\":%.4f,\"max\":%.4f},", name,
	       samples->count, quantile(samples, 0.5), quantile(samples, 0.9), quantile(samples, 0.99),
	       quantile(samples, 0.999), quantile(samples, 1));
}

void statistics_print(double wall_s, double cpu_s, int calls)
{
	printf("{");
	samples_print("up_ms", &statistics.up);
	samples_print("down_ms", &statistics.down);
	samples_print("lateness_ms", &statistics.lateness);
#define COUNT(name) printf("\"" #name "\":%" PRIu64 ",", statistics.name)
	COUNT(frames_sent);
	COUNT(frames_received);
	COUNT(frames_lost);
	COUNT(frames_garbled);
	COUNT(responses_sent);
	COUNT(responses_heard);
	COUNT(responses_silent);
	COUNT(responses_incomplete);
	COUNT(barge_ins);
	COUNT(kills);
	COUNT(truncates);
	COUNT(overruns);
	COUNT(stalls);
	COUNT(closed);
#undef COUNT
	printf("\"calls\":%d,\"wall_s\":%.4f,\"cpu_s\":%.4f}\n", calls, wall_s, cpu_s);
	fflush(stdout);
}
