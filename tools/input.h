#ifndef SL_TOOLS_INPUT_H
#define SL_TOOLS_INPUT_H

/*
 * A file, or standard input, line by line. The buffer starts at 1 MiB and grows only for a line
 * that is longer, up to SL_LINE_BYTES_MAX. Tools only; blocks on the file; watches a stop
 * descriptor meanwhile.
 */

#include "common/err.h"

struct sl_input {
    const char *name; /* for messages; borrowed */
    int fd;
    int stop_fd; /* borrowed; -1: none */
    bool has_ended;
    char *buf;
    size_t size_bytes;
    size_t start; /* first byte not given out */
    size_t len;
    uint64_t line_number; /* of the line given out last, from 1 */
    uint64_t bytes_read;
    uint64_t file_bytes; /* 0: not a regular file */
};

/* Opens `path`, "-" or NULL being standard input. SL_ERR_INPUT with errno; SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_input_open(struct sl_input *input, const char *path, int stop_fd);
void sl_input_close(struct sl_input *input);

/* The next line without its line feed, valid until the next call; *has_line false at the end.
 * SL_ERR_INPUT: reading failed (errno), or the line is longer than SL_LINE_BYTES_MAX (errno 0);
 * SL_ERR_INTERRUPTED; SL_ERR_NO_MEMORY. line_number is the faulty line's then. */
MUST_CHECK enum sl_err sl_input_next(struct sl_input *input, struct sl_span *line, bool *has_line);

#endif
