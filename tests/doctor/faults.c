/* Preloaded into the command, at the wish of variables: FSYNC_SECONDS makes every sync take so long, FLOCK_VOID grants
   every lock, CLOCK_AHEAD_SECONDS sets this process's clock that far ahead of the file system's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double wished(const char *name)
{
    const char *text = getenv(name);
    return text ? atof(text) : 0;
}

int fsync(int descriptor)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    usleep((useconds_t)(wished("FSYNC_SECONDS") * 1e6));
    return real(descriptor);
}

int flock(int descriptor, int operation)
{
    static int (*real)(int, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "flock");
    return getenv("FLOCK_VOID") ? 0 : real(descriptor, operation);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME)
        now->tv_sec += (time_t)wished("CLOCK_AHEAD_SECONDS");
    return result;
}
