/*
 * Reads lines from a file or a pipe in large pieces.
 *
 * Runs in the tools. Never holds more than one buffer: as large as the longest line needs, at most
 * SL_LINE_BYTES_MAX and a bit. A last line without a line feed is a line. Knows nothing of what the
 * lines mean. While it waits for a pipe it watches the stop descriptor, so a signal ends the wait.
 *
 * Reports SL_ERR_INPUT (with errno, or 0 for a line that is too long), SL_ERR_INTERRUPTED and
 * SL_ERR_NO_MEMORY. Keeps nothing that a crash could damage.
 */
#include "tools/input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/os.h"
#include "tools/line.h"

#define INPUT_BUFFER_BYTES SL_MIB

enum sl_err sl_input_open(struct sl_input *input, const char *path, int stop_fd)
{
    struct stat info;
    bool is_stdin = path == NULL || strcmp(path, "-") == 0;

    memset(input, 0, sizeof(*input));
    input->name = is_stdin ? "-" : path;
    input->stop_fd = stop_fd;
    input->fd =
        is_stdin ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);
    if (input->fd < 0) {
        return SL_ERR_INPUT;
    }
    if (fstat(input->fd, &info) == 0 && S_ISREG(info.st_mode)) {
        input->file_bytes = (uint64_t)info.st_size;
    }
    input->buf = malloc(INPUT_BUFFER_BYTES);
    if (input->buf == NULL) {
        sl_os_close(&input->fd);
        return SL_ERR_NO_MEMORY;
    }
    input->size_bytes = INPUT_BUFFER_BYTES;
    return SL_OK;
}

void sl_input_close(struct sl_input *input)
{
    sl_os_close(&input->fd);
    free(input->buf);
    input->buf = NULL;
}

/* Makes room behind the bytes that wait: moves them to the front, or grows for a long line. */
static enum sl_err make_room(struct sl_input *input)
{
    size_t waiting = input->len - input->start;

    if (input->len < input->size_bytes) {
        return SL_OK;
    }
    if (input->start > 0) {
        memmove(input->buf, input->buf + input->start, waiting);
        input->start = 0;
        input->len = waiting;
        return SL_OK;
    }
    if (waiting > SL_LINE_BYTES_MAX) {
        errno = 0;
        return SL_ERR_INPUT;
    }
    size_t grown_bytes = SL_MIN(input->size_bytes * 2, SL_LINE_BYTES_MAX + SL_KIB);
    char *grown = realloc(input->buf, grown_bytes);
    if (grown == NULL) {
        return SL_ERR_NO_MEMORY;
    }
    input->buf = grown;
    input->size_bytes = grown_bytes;
    return SL_OK;
}

/* Waits for bytes; a signal ends the wait. */
static enum sl_err wait_readable(const struct sl_input *input)
{
    for (;;) {
        struct pollfd polls[2] = {{.fd = input->fd, .events = POLLIN},
                                  {.fd = input->stop_fd, .events = POLLIN}};
        int rc = poll(polls, 2, -1);

        if (rc > 0) {
            return polls[1].revents != 0 ? SL_ERR_INTERRUPTED : SL_OK;
        }
        if (rc < 0 && errno != EINTR) {
            return SL_ERR_INPUT;
        }
    }
}

static enum sl_err read_more(struct sl_input *input)
{
    enum sl_err err = make_room(input);

    if (err == SL_OK) {
        err = wait_readable(input);
    }
    if (err != SL_OK) {
        return err;
    }
    ssize_t got = read(input->fd, input->buf + input->len, input->size_bytes - input->len);
    if (got < 0) {
        return errno == EINTR || errno == EAGAIN ? SL_OK : SL_ERR_INPUT;
    }
    input->has_ended = got == 0;
    input->len += (size_t)got;
    input->bytes_read += (uint64_t)got;
    return SL_OK;
}

static void give_line(struct sl_input *input, size_t end, size_t feed_bytes, struct sl_span *line)
{
    SL_ASSERT(end >= input->start && end + feed_bytes <= input->len);
    *line = sl_span_of(input->buf + input->start, end - input->start);
    input->start = end + feed_bytes;
    input->line_number++;
}

enum sl_err sl_input_next(struct sl_input *input, struct sl_span *line, bool *has_line)
{
    size_t looked = input->start; /* no line feed before it */

    *has_line = true;
    for (;;) {
        char *feed = memchr(input->buf + looked, '\n', input->len - looked);
        if (feed != NULL) {
            give_line(input, (size_t)(feed - input->buf), 1, line);
            return SL_OK;
        }
        if (input->has_ended) {
            *has_line = input->start < input->len;
            if (*has_line) {
                give_line(input, input->len, 0, line);
            }
            return SL_OK;
        }
        size_t waiting = input->len - input->start;
        enum sl_err err = read_more(input);
        if (err != SL_OK) {
            input->line_number++;
            return err;
        }
        looked = input->start + waiting;
    }
}
