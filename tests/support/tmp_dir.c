/*
 * A test's own directory. Used by unit tests in their fixtures; not thread-safe. Failing to make or
 * write it means that the machine is not fit for tests: the program ends with a message.
 */
#include "tests/support/tmp_dir.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os.h"

#define PATH_BYTES 512
#define RESULTS_MAX 8
#define OPEN_DIRS_MAX 16

static char dir_path[PATH_BYTES];

static void give_up(const char *what)
{
    fprintf(stderr, "tmp_dir: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

void tmp_dir_make(void)
{
    const char *base = getenv("TMPDIR");

    snprintf(dir_path, sizeof(dir_path), "%s/sluice-test-XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(dir_path) == NULL) {
        give_up(dir_path);
    }
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *place)
{
    return remove(path);
}

void tmp_dir_remove(void)
{
    if (dir_path[0] != '\0' &&
        nftw(dir_path, remove_entry, OPEN_DIRS_MAX, FTW_DEPTH | FTW_PHYS) != 0) {
        give_up(dir_path);
    }
    dir_path[0] = '\0';
}

const char *tmp_dir_path(void)
{
    return dir_path;
}

const char *tmp_dir_file(const char *name)
{
    static char results[RESULTS_MAX][2 * PATH_BYTES];
    static unsigned next;
    char *result = results[next++ % RESULTS_MAX];

    snprintf(result, sizeof(results[0]), "%s/%s", dir_path, name);
    return result;
}

const char *tmp_dir_write_bytes(const char *name, const void *bytes, size_t len)
{
    const char *path = tmp_dir_file(name);
    char parent[2 * PATH_BYTES];

    snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(path, '/') - path), path);
    if (sl_os_make_dirs(parent, 0755) != SL_OK) {
        give_up(parent);
    }
    FILE *file = fopen(path, "we");
    if (file == NULL || fwrite(bytes, 1, len, file) != len || fclose(file) != 0) {
        give_up(path);
    }
    return path;
}

const char *tmp_dir_write(const char *name, const char *text)
{
    return tmp_dir_write_bytes(name, text, strlen(text));
}
