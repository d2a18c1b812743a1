/* Writes down, in order, every call that changes something beneath one folder, and ends the process before the n-th:
 * preloaded by diskshim.py, whose Control is the page at $DISKSHIM. Calls of one process stand in the order in which they
 * happened, for they happen one at a time; what stands in a file's mapping is not seen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    atomic_int most; /* the call before which the process ends; 0: none */
    atomic_int seen; /* how many calls came so far */
    char root[PATH_MAX];
    char log[PATH_MAX]; /* "": nothing is written down */
};
struct entry { /* as diskshim.py reads it; behind it lie both paths and the data */
    int32_t kind, flags;
    uint32_t path, other, data;
    uint32_t unused;
    uint64_t inode;
    int64_t at;
};
enum { CREATE, WRITE, CUT, SYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, SYMLINK };

static struct control *page;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("DISKSHIM");
    int fd = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (found != MAP_FAILED) page = found;
    close(fd);
}

static int beneath(const char *path) {
    size_t length = strlen(page->root);
    return length && strncmp(path, page->root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int path_of(int fd, char *path) { /* 1 for a file beneath the folder */
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return beneath(path);
}

static int whole(int folder, const char *name, char *path) { /* the absolute path; 1 where it is beneath the folder */
    char base[PATH_MAX] = "";
    if (!page || !page->root[0]) return 0;
    if (name[0] != '/') {
        if (folder != AT_FDCWD) path_of(folder, base);
        else if (!getcwd(base, sizeof base)) return 0;
    }
    if (snprintf(path, PATH_MAX, name[0] == '/' ? "%s%s" : "%s/%s", base, name) >= PATH_MAX) return 0;
    return beneath(path);
}

static void my_turn(void) {
    pthread_mutex_lock(&turn);
    if (atomic_fetch_add(&page->seen, 1) + 1 == atomic_load(&page->most)) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
}

static void note(int kind, uint64_t inode, int64_t at, const char *path, const char *other, const void *data, size_t size, int flags) {
    struct entry entry = {kind, flags, (uint32_t)strlen(path), (uint32_t)strlen(other), (uint32_t)size, 0, inode, at};
    struct iovec parts[] = {{&entry, sizeof entry}, {(void *)path, entry.path}, {(void *)other, entry.other}, {(void *)data, size}};
    int before = errno, fd = page->log[0] ? REAL(open)(page->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        if (writev(fd, parts, 4) < 0) abort();
        close(fd);
    }
    errno = before;
}

static uint64_t inode_at(const char *path) {
    struct stat status;
    return lstat(path, &status) ? 0 : status.st_ino;
}

static int opened(int folder, const char *name, int flags, int mode, int at) {
    char path[PATH_MAX];
    int (*open_at)(int, const char *, int, ...) = at == 64 ? REAL(openat64) : REAL(openat);
    if (!(flags & (O_CREAT | O_TRUNC)) || !whole(folder, name, path)) return open_at(folder, name, flags, mode);
    struct stat status;
    int there = !stat(path, &status);
    if (there && !((flags & O_TRUNC) && S_ISREG(status.st_mode))) return open_at(folder, name, flags, mode);
    my_turn();
    int fd = open_at(folder, name, flags, mode);
    if (fd >= 0 && !fstat(fd, &status)) note(there ? CUT : CREATE, status.st_ino, 0, path, "", "", 0, 0);
    pthread_mutex_unlock(&turn);
    return fd;
}
#define MODE(last) int mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, last); mode = va_arg(list, int); va_end(list); }
int open(const char *name, int flags, ...) { MODE(flags); return opened(AT_FDCWD, name, flags, mode, 0); }
int open64(const char *name, int flags, ...) { MODE(flags); return opened(AT_FDCWD, name, flags, mode, 64); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags); return opened(folder, name, flags, mode, 0); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags); return opened(folder, name, flags, mode, 64); }

static int ours(int fd, char *path, struct stat *status) { /* a file or folder beneath, or one that lost its name */
    return page && page->root[0] && path_of(fd, path) && !fstat(fd, status) && (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode));
}

static ssize_t written(int fd, const void *data, size_t size, off_t at, int placed) {
    char path[PATH_MAX];
    struct stat status;
    if (!ours(fd, path, &status)) return placed ? REAL(pwrite64)(fd, data, size, at) : REAL(write)(fd, data, size);
    my_turn();
    if (!placed) {
        fstat(fd, &status);
        at = fcntl(fd, F_GETFL) & O_APPEND ? status.st_size : lseek(fd, 0, SEEK_CUR);
    }
    ssize_t done = placed ? REAL(pwrite64)(fd, data, size, at) : REAL(write)(fd, data, size);
    if (done > 0) note(WRITE, status.st_ino, at, path, "", data, done, 0);
    pthread_mutex_unlock(&turn);
    return done;
}
ssize_t write(int fd, const void *data, size_t size) { return written(fd, data, size, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return written(fd, data, size, at, 1); }

static int on_fd(int fd, int kind, off_t size, int (*call)(int, off_t)) {
    char path[PATH_MAX];
    struct stat status;
    if (!ours(fd, path, &status)) return call(fd, size);
    my_turn();
    int done = call(fd, size);
    if (!done) note(kind, status.st_ino, size, path, "", "", 0, 0);
    pthread_mutex_unlock(&turn);
    return done;
}
static int all_of(int fd, off_t none) { (void)none; return REAL(fsync)(fd); }
static int data_of(int fd, off_t none) { (void)none; return REAL(fdatasync)(fd); }
int fsync(int fd) { return on_fd(fd, SYNC, 0, all_of); }
int fdatasync(int fd) { return on_fd(fd, SYNC, 0, data_of); }
int ftruncate(int fd, off_t size) { return on_fd(fd, CUT, size, REAL(ftruncate)); }
int ftruncate64(int fd, off64_t size) { return on_fd(fd, CUT, size, REAL(ftruncate)); }

#define NAMED(kind, folder, name, folder_too, name_too, flags, size_of_data, call)            \
    do {                                                                                      \
        char path_[PATH_MAX], other_[PATH_MAX] = "";                                          \
        int both_ = whole(folder, name, path_);                                               \
        const char *second_ = name_too;                                                       \
        if (second_ && whole(folder_too, second_, other_)) both_ = 1;                         \
        if (!both_) return call;                                                              \
        my_turn();                                                                            \
        int done_ = call;                                                                     \
        if (!done_) note(kind, inode_at(second_ ? other_ : path_), 0, path_, other_, "", 0, flags); \
        pthread_mutex_unlock(&turn);                                                          \
        return done_;                                                                         \
    } while (0)

int rename(const char *a, const char *b) { NAMED(RENAME, AT_FDCWD, a, AT_FDCWD, b, 0, 0, REAL(rename)(a, b)); }
int renameat(int f, const char *a, int g, const char *b) { NAMED(RENAME, f, a, g, b, 0, 0, REAL(renameat)(f, a, g, b)); }
int renameat2(int f, const char *a, int g, const char *b, unsigned flags) { NAMED(RENAME, f, a, g, b, (int)flags, 0, REAL(renameat2)(f, a, g, b, flags)); }
int link(const char *a, const char *b) { NAMED(LINK, AT_FDCWD, a, AT_FDCWD, b, 0, 0, REAL(link)(a, b)); }
int linkat(int f, const char *a, int g, const char *b, int flags) { NAMED(LINK, f, a, g, b, 0, 0, REAL(linkat)(f, a, g, b, flags)); }
int unlink(const char *a) { NAMED(UNLINK, AT_FDCWD, a, 0, NULL, 0, 0, REAL(unlink)(a)); }
int unlinkat(int f, const char *a, int flags) { NAMED(flags & AT_REMOVEDIR ? RMDIR : UNLINK, f, a, 0, NULL, 0, 0, REAL(unlinkat)(f, a, flags)); }
int rmdir(const char *a) { NAMED(RMDIR, AT_FDCWD, a, 0, NULL, 0, 0, REAL(rmdir)(a)); }
int mkdir(const char *a, mode_t mode) { NAMED(MKDIR, AT_FDCWD, a, 0, NULL, 0, 0, REAL(mkdir)(a, mode)); }
int mkdirat(int f, const char *a, mode_t mode) { NAMED(MKDIR, f, a, 0, NULL, 0, 0, REAL(mkdirat)(f, a, mode)); }
int symlink(const char *target, const char *a) { NAMED(SYMLINK, AT_FDCWD, a, 0, NULL, 0, 0, REAL(symlink)(target, a)); }
