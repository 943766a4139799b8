/* SPDX-License-Identifier: BSD-2-Clause */
/* progress.c - see progress.h.  Owns one thread from begin to end; a host that has none to give tells nothing. */
#include "cli/progress.h"
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { LINE_WIDTH = 70 };

static struct {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	const char *what, *step;
	uint64_t done, all; /* atomic: written by the step                                             */
	bool running, over, told; /* over: under the lock                                              */
} state = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void tell(unsigned seconds)
{
	uint64_t done = __atomic_load_n(&state.done, __ATOMIC_RELAXED);
	uint64_t all = __atomic_load_n(&state.all, __ATOMIC_RELAXED);

	if (all)
		fprintf(stderr, "\r%s: %s, %.0f %% ", state.what, state.step, 100.0 * (double)done / (double)all);
	else
		fprintf(stderr, "\r%s: %s, %u s ", state.what, state.step, seconds);
	fflush(stderr);
	state.told = true;
}

static void *speak(void *unused)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	pthread_mutex_lock(&state.lock);
	for (unsigned seconds = 1; !state.over; seconds++) {
		int err = 0;

		at.tv_sec++;
		while (!state.over && err == 0)
			err = pthread_cond_timedwait(&state.wake, &state.lock, &at);
		if (!state.over)
			tell(seconds);
	}
	pthread_mutex_unlock(&state.lock);
	return unused;
}

void progress_begin(bool wanted, const char *what, const char *step)
{
	pthread_condattr_t monotonic;

	progress_end();
	progress_at(0, 0);
	if (!wanted || pthread_condattr_init(&monotonic) != 0)
		return;
	state.what = what;
	state.step = step;
	state.over = state.told = false;
	if (pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0 && pthread_cond_init(&state.wake, &monotonic) == 0)
		state.running = pthread_create(&state.thread, NULL, speak, NULL) == 0;
	pthread_condattr_destroy(&monotonic);
}

void progress_at(uint64_t done, uint64_t all)
{
	__atomic_store_n(&state.done, done, __ATOMIC_RELAXED);
	__atomic_store_n(&state.all, all, __ATOMIC_RELAXED);
}

void progress_end(void)
{
	if (!state.running)
		return;
	pthread_mutex_lock(&state.lock);
	state.over = true;
	pthread_cond_signal(&state.wake);
	pthread_mutex_unlock(&state.lock);
	pthread_join(state.thread, NULL);
	pthread_cond_destroy(&state.wake);
	state.running = false;
	if (state.told)
		fprintf(stderr, "\r%*s\r", LINE_WIDTH, "");
}
