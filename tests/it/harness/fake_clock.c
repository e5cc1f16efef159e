/* A wall clock that another process sets, for a program that loads this library first. The file FAKE_CLOCK has the
 * seconds, as an int64_t, by which the clock is ahead. Timed waits of C11, which librdkafka uses, end at a time of this
 * clock, as they end at a time of the real one: also if it is stepped meanwhile. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>

static const int64_t SLICE = 50000000, SECOND = 1000000000; /* ns */
static volatile int64_t *ahead;
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_timedwait)(cnd_t *, mtx_t *, const struct timespec *);

__attribute__((constructor)) static void begin(void) {
	real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
	real_timedwait = dlsym(RTLD_NEXT, "cnd_timedwait");
	int file = open(getenv("FAKE_CLOCK"), O_RDONLY);
	void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
	if (page == MAP_FAILED)
		abort();
	ahead = page;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
	if (!real_gettime)
		begin();
	int result = real_gettime(clock, time);
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		time->tv_sec += *ahead;
	return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	time->tv_sec = now.tv_sec;
	time->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out) {
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (out)
		*out = now.tv_sec;
	return now.tv_sec;
}

static int64_t nanoseconds(const struct timespec *time) { return time->tv_sec * SECOND + time->tv_nsec; }

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
	for (;;) {
		struct timespec fake, real;
		clock_gettime(CLOCK_REALTIME, &fake);
		real_gettime(CLOCK_REALTIME, &real);
		int64_t left = nanoseconds(until) - nanoseconds(&fake);
		int64_t end = nanoseconds(&real) + (left < SLICE ? left : SLICE);
		struct timespec slice = {end / SECOND, end % SECOND};
		int result = real_timedwait(condition, mutex, &slice);
		if (result != thrd_timedout || left <= SLICE)
			return result;
	}
}
