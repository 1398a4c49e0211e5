/*
 * The side file of an output: two lines, `job NAME` and `input PATH`.
 *
 * Runs in sluice-submit. Written under a temporary name, synced and renamed before the first task
 * is accepted; removed when the output is complete. A crash leaves either no file or a whole one.
 * A file of another input, or one that is not understood, is ignored and later replaced: the worst
 * that can follow is a job of its own for this run.
 *
 * Reports SL_ERR_OUTPUT with errno.
 */
#include "tools/jobfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os.h"

#define SUFFIX ".sluice-job"
#define FILE_BYTES_MAX (SL_NAME_BYTES_MAX + SL_PATH_BYTES_MAX + 64)

static bool is_regular(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool sl_jobfile_init(struct sl_jobfile *jobfile, const char *output, const char *input)
{
    char resolved[PATH_MAX] = "-";
    bool is_stdin = input == NULL || strcmp(input, "-") == 0;

    if (!is_regular(output) || (!is_stdin && realpath(input, resolved) == NULL) ||
        strchr(resolved, '\n') != NULL) {
        return false;
    }
    int len = snprintf(jobfile->path, sizeof(jobfile->path), "%s" SUFFIX, output);
    return len > 0 && (size_t)len < sizeof(jobfile->path) &&
           sl_span_copy_str(jobfile->input, sizeof(jobfile->input), sl_span_str(resolved));
}

/* Takes "KEY VALUE\n" off the front of *text. */
static bool take_value(char **text, const char *key, const char **value)
{
    size_t key_len = strlen(key);
    char *feed = strchr(*text, '\n');

    if (feed == NULL || strncmp(*text, key, key_len) != 0 || (*text)[key_len] != ' ') {
        return false;
    }
    *feed = '\0';
    *value = *text + key_len + 1;
    *text = feed + 1;
    return true;
}

bool sl_jobfile_load(const struct sl_jobfile *jobfile, char job[SL_NAME_BYTES_MAX + 1])
{
    char text[FILE_BYTES_MAX];
    char *rest = text;
    const char *name;
    const char *input;
    int fd = open(jobfile->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        return false;
    }
    ssize_t got = read(fd, text, sizeof(text) - 1);
    sl_os_close(&fd);
    if (got <= 0) {
        return false;
    }
    text[got] = '\0';
    return take_value(&rest, "job", &name) && take_value(&rest, "input", &input) &&
           strcmp(input, jobfile->input) == 0 && name[0] != '\0' &&
           sl_span_copy_str(job, SL_NAME_BYTES_MAX + 1, sl_span_str(name));
}

static enum sl_err write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0) {
        return SL_ERR_OUTPUT;
    }
    enum sl_err err = sl_os_write_all(fd, text, strlen(text), -1);
    if (err == SL_OK && fsync(fd) != 0) {
        err = SL_ERR_OUTPUT;
    }
    sl_os_close(&fd);
    return err == SL_OK ? SL_OK : SL_ERR_OUTPUT;
}

enum sl_err sl_jobfile_store(const struct sl_jobfile *jobfile, const char *job)
{
    char tmp[SL_PATH_BYTES_MAX + 8];
    char text[FILE_BYTES_MAX];

    snprintf(tmp, sizeof(tmp), "%s.tmp", jobfile->path);
    snprintf(text, sizeof(text), "job %s\ninput %s\n", job, jobfile->input);
    enum sl_err err = write_file(tmp, text);
    if (err == SL_OK && rename(tmp, jobfile->path) != 0) {
        err = SL_ERR_OUTPUT;
    }
    if (err != SL_OK) {
        int reason = errno;
        (void)unlink(tmp);
        errno = reason;
    }
    return err;
}

void sl_jobfile_remove(const struct sl_jobfile *jobfile)
{
    (void)unlink(jobfile->path);
}
