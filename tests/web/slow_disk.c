/* Preloaded into a server: reading a file whose path has "/slow/" in it is never done from the page cache and takes
   SLOW_SECONDS. Nothing else is changed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_slow(int descriptor)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, "/slow/") != NULL;
}

static void wait_for_the_disk(void)
{
    const char *seconds = getenv("SLOW_SECONDS");
    usleep((useconds_t)((seconds ? atof(seconds) : 1) * 1e6));
}

ssize_t preadv2(int descriptor, const struct iovec *pieces, int count, off_t offset, int flags)
{
    static ssize_t (*real)(int, const struct iovec *, int, off_t, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "preadv2");
    if (is_slow(descriptor)) {
        if (flags & RWF_NOWAIT) {
            errno = EAGAIN;
            return -1;
        }
        wait_for_the_disk();
    }
    return real(descriptor, pieces, count, offset, flags);
}

ssize_t preadv64v2(int descriptor, const struct iovec *pieces, int count, off_t offset, int flags)
{
    return preadv2(descriptor, pieces, count, offset, flags);
}

ssize_t pread64(int descriptor, void *buffer, size_t length, off_t offset)
{
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pread64");
    if (is_slow(descriptor))
        wait_for_the_disk();
    return real(descriptor, buffer, length, offset);
}

ssize_t pread(int descriptor, void *buffer, size_t length, off_t offset)
{
    return pread64(descriptor, buffer, length, offset);
}
