/* Refuses calls that write beneath one folder, as a bad disk would: preloaded into a daemon by faultshim.py.
 *
 * The page at $FAULTSHIM (see struct control) says which calls, with which errno, from the n-th on, and how many. What is
 * refused of a write is refused in its middle: the first half is written. A sync that is refused marks the file: a later
 * sync of the same file that succeeds is counted (lies), for on a real disk it would prove nothing of what was lost. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 4096 };
enum { CREATE = 1, WRITE = 2, SYNC = 4, NAME = 8, OPEN = 16 };
struct control {
    atomic_int error;  /* 0: nothing is refused */
    atomic_int kinds;  /* of the calls that count */
    atomic_int first;  /* how many of them are let through */
    atomic_int most;   /* how many are refused after that */
    atomic_int seen;   /* how many came since it was set */
    atomic_int refused;
    atomic_int lies;
    char root[PATH_MAX];
    char last[64]; /* the call that was refused last */
};

static struct control *page;
static struct { dev_t device; ino_t inode; long long born; } doubted[MOST]; /* a number is given to many, one by one */
static atomic_int doubts;
#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTSHIM");
    int fd = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (found != MAP_FAILED) page = found;
    close(fd);
}

static int beneath(const char *path) {
    size_t length = strlen(page->root);
    return strncmp(path, page->root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static __thread char path_of[PATH_MAX]; /* the file that fd_beneath was asked about */

static int fd_beneath(int fd) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path_of, sizeof path_of - 1);
    if (length < 0) return 0;
    path_of[length] = 0;
    return beneath(path_of);
}

static int path_beneath(int folder, const char *path) {
    return path[0] == '/' ? beneath(path) : folder == AT_FDCWD ? 0 : fd_beneath(folder);
}

/* The errno for this call, 0 where it may go on. */
static int refusal(int kind, const char *call) {
    int error = page ? atomic_load(&page->error) : 0;
    if (!error || !(atomic_load(&page->kinds) & kind)) return 0;
    int number = atomic_fetch_add(&page->seen, 1), first = atomic_load(&page->first);
    if (number < first || number - first >= atomic_load(&page->most)) return 0;
    atomic_fetch_add(&page->refused, 1);
    snprintf(page->last, sizeof page->last, "%s", call);
    return error;
}

#define REFUSE(where, kind, call)                                     \
    do {                                                              \
        int error_ = page && (where) ? refusal(kind, call) : 0;       \
        if (error_) { errno = error_; return -1; }                    \
    } while (0)

#define OPENS(name)                                                                                          \
    int name(const char *path, int flags, ...) {                                                             \
        va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list);                     \
        REFUSE(path_beneath(AT_FDCWD, path), flags & O_CREAT ? CREATE | OPEN : flags & O_ACCMODE ? NAME | OPEN : OPEN, "open"); \
        return REAL(name)(path, flags, mode);                                                               \
    }
#define OPENSAT(name)                                                                                        \
    int name(int folder, const char *path, int flags, ...) {                                                 \
        va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list);                     \
        REFUSE(path_beneath(folder, path), flags & O_CREAT ? CREATE | OPEN : flags & O_ACCMODE ? NAME | OPEN : OPEN, "openat"); \
        return REAL(name)(folder, path, flags, mode);                                                       \
    }
OPENS(open)
OPENS(open64)
OPENSAT(openat)
OPENSAT(openat64)

/* A full disk has room for what stands in the place of something else. */
static int grows(int fd, off_t end) {
    int error = atomic_load(&page->error);
    struct stat status;
    if ((error != ENOSPC && error != EDQUOT) || fcntl(fd, F_GETFL) & O_APPEND || fstat(fd, &status)) return 1;
    return end > status.st_blocks * 512;
}

ssize_t write(int fd, const void *data, size_t size) {
    int error = page && atomic_load(&page->error) && fd_beneath(fd) && grows(fd, lseek(fd, 0, SEEK_CUR) + (off_t)size) ? refusal(WRITE, "write") : 0;
    if (!error) return REAL(write)(fd, data, size);
    if (size > 1) (void)!REAL(write)(fd, data, size / 2);
    errno = error;
    return -1;
}
#define PWRITES(name)                                                                                        \
    ssize_t name(int fd, const void *data, size_t size, off_t at) {                                          \
        REFUSE(atomic_load(&page->error) && fd_beneath(fd) && grows(fd, at + (off_t)size), WRITE, "pwrite");                              \
        return REAL(name)(fd, data, size, at);                                                               \
    }
PWRITES(pwrite)
PWRITES(pwrite64)

/* Only the daemon's own records are counted: of a person's file it is told that the call failed. */
static int synced(int fd, const char *call, int (*sync)(int)) {
    struct stat status;
    struct statx more;
    if (!page || !fd_beneath(fd)) return sync(fd);
    int error = refusal(SYNC, call), known = atomic_load(&doubts);
    int counts = !fstat(fd, &status) && S_ISREG(status.st_mode) && strstr(path_of, "/.fsagent/");
    long long born = statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &more) ? 0 : more.stx_btime.tv_sec * 1000000000LL + more.stx_btime.tv_nsec;
    for (int i = 0; counts && !error && i < known; i++)
        if (doubted[i].device == status.st_dev && doubted[i].inode == status.st_ino && doubted[i].born == born) {
            atomic_fetch_add(&page->lies, 1);
            snprintf(page->last, sizeof page->last, "%s", strrchr(path_of, '/'));
        }
    if (!error) return sync(fd);
    if (counts && known < MOST) {
        doubted[known].device = status.st_dev;
        doubted[known].inode = status.st_ino;
        doubted[known].born = born;
        atomic_store(&doubts, known + 1);
    }
    errno = error;
    return -1;
}
int fsync(int fd) { return synced(fd, "fsync", REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, "fdatasync", REAL(fdatasync)); }

int rename(const char *a, const char *b) { REFUSE(path_beneath(AT_FDCWD, b), NAME, "rename"); return REAL(rename)(a, b); }
int renameat(int f, const char *a, int g, const char *b) { REFUSE(path_beneath(g, b), NAME, "renameat"); return REAL(renameat)(f, a, g, b); }
int link(const char *a, const char *b) { REFUSE(path_beneath(AT_FDCWD, b), NAME | CREATE, "link"); return REAL(link)(a, b); }
int linkat(int f, const char *a, int g, const char *b, int flags) { REFUSE(path_beneath(g, b), NAME | CREATE, "linkat"); return REAL(linkat)(f, a, g, b, flags); }
int unlink(const char *a) { REFUSE(path_beneath(AT_FDCWD, a), NAME, "unlink"); return REAL(unlink)(a); }
int unlinkat(int f, const char *a, int flags) { REFUSE(path_beneath(f, a), NAME, "unlinkat"); return REAL(unlinkat)(f, a, flags); }
int mkdir(const char *a, mode_t mode) { REFUSE(path_beneath(AT_FDCWD, a), CREATE, "mkdir"); return REAL(mkdir)(a, mode); }
int mkdirat(int f, const char *a, mode_t mode) { REFUSE(path_beneath(f, a), CREATE, "mkdirat"); return REAL(mkdirat)(f, a, mode); }
int rmdir(const char *a) { REFUSE(path_beneath(AT_FDCWD, a), NAME, "rmdir"); return REAL(rmdir)(a); }
int ftruncate(int fd, off_t size) { REFUSE(atomic_load(&page->error) == EIO && fd_beneath(fd), WRITE, "ftruncate"); return REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { REFUSE(atomic_load(&page->error) == EIO && fd_beneath(fd), WRITE, "ftruncate"); return REAL(ftruncate64)(fd, size); }
