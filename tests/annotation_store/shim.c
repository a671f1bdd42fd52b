/* What a network file system may do to a process, at the wish of a test: preloaded into a server (LD_PRELOAD).
 *
 * SHIM_CONTROL names a file of counters that the test writes and every process maps. Only files that end in SHIM_NAME
 * are concerned, or lie beneath SHIM_ROOT where a lock is asked for.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    int32_t renames_done_but_failed; /* so many renames are done and reported as EIO */
    int32_t stale_renames;           /* … are not done and reported as ESTALE */
    int32_t stale_opens;             /* so many opens are answered ESTALE */
    int32_t old_attributes;          /* so many fstats are answered as the last one before them */
    int32_t no_locks;                /* not 0: flock is answered ENOLCK */
    int32_t reserved;
    int64_t clock_seconds;           /* how much later the wall clock is */
};

static struct control nothing, *control = &nothing;
static const char *name = "", *root = "";

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SHIM_CONTROL");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *place = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (place == MAP_FAILED)
        return;
    name = getenv("SHIM_NAME") ? getenv("SHIM_NAME") : "";
    root = getenv("SHIM_ROOT") ? getenv("SHIM_ROOT") : "";
    control = place;
}

static int is_due(int32_t *counter) {
    int32_t left = __atomic_load_n(counter, __ATOMIC_SEQ_CST);
    while (left > 0)
        if (__atomic_compare_exchange_n(counter, &left, left - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return 1;
    return 0;
}

static int is_meant(const char *path) {
    size_t length = strlen(path), end = strlen(name);
    return end > 0 && length >= end && strcmp(path + length - end, name) == 0;
}

static int path_of(int file, char *path, size_t size) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0;
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    static int (*real)(int, const char *, int, const char *);
    if (!real)
        real = dlsym(RTLD_NEXT, "renameat");
    if (is_meant(to) && is_due(&control->stale_renames)) {
        errno = ESTALE;
        return -1;
    }
    int done = real(from_directory, from, to_directory, to);
    if (done == 0 && is_meant(to) && is_due(&control->renames_done_but_failed)) {
        errno = EIO;
        return -1;
    }
    return done;
}

static int opened(int directory, const char *path, int flags, mode_t mode) {
    static int (*real)(int, const char *, int, ...);
    if (!real)
        real = dlsym(RTLD_NEXT, "openat");
    if (is_meant(path) && is_due(&control->stale_opens)) {
        errno = ESTALE;
        return -1;
    }
    return real(directory, path, flags, mode);
}

#define OPEN(symbol)                                                                                                   \
    int symbol(int directory, const char *path, int flags, ...) {                                                      \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return opened(directory, path, flags, mode);                                                                   \
    }
OPEN(openat)
OPEN(openat64)

/* openat2 has no function of its own in the C library. */
long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real)
        real = dlsym(RTLD_NEXT, "syscall");
    va_list rest;
    va_start(rest, number);
    long given[6];
    for (int place = 0; place < 6; place++)
        given[place] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_openat2 && is_meant((const char *)given[1]) && is_due(&control->stale_opens)) {
        errno = ESTALE;
        return -1;
    }
    return real(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

static int attributes(int file, struct stat *found) {
    static int (*real)(int, struct stat *);
    static struct stat last;
    static int is_known;
    char path[4096];
    if (!real)
        real = dlsym(RTLD_NEXT, "fstat");
    if (control == &nothing || !path_of(file, path, sizeof path) || !is_meant(path))
        return real(file, found);
    if (is_known && is_due(&control->old_attributes)) {
        *found = last;
        return 0;
    }
    int done = real(file, found);
    if (done == 0)
        last = *found, is_known = 1;
    return done;
}

int fstat(int file, struct stat *found) { return attributes(file, found); }
int fstat64(int file, struct stat64 *found) { return attributes(file, (struct stat *)found); }

int flock(int file, int operation) {
    static int (*real)(int, int);
    char path[4096];
    if (!real)
        real = dlsym(RTLD_NEXT, "flock");
    if (control->no_locks && path_of(file, path, sizeof path) && strncmp(path, root, strlen(root)) == 0) {
        errno = ENOLCK;
        return -1;
    }
    return real(file, operation);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(clock, now);
    if (done == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += control->clock_seconds;
    return done;
}

int gettimeofday(struct timeval *now, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real)
        real = dlsym(RTLD_NEXT, "gettimeofday");
    int done = real(now, zone);
    if (done == 0)
        now->tv_sec += control->clock_seconds;
    return done;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place)
        *place = now.tv_sec;
    return now.tv_sec;
}
