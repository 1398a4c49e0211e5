#ifndef SL_TOOLS_OUTPUT_H
#define SL_TOOLS_OUTPUT_H

/*
 * Results as output lines (docs: "Output"), to a file or standard output. Tools only; blocks on the
 * file.
 */

#include "common/err.h"
#include "common/json.h"
#include "common/wire.h"

/* Appends one result as one line, line feed included. text->is_failed: out of memory. */
void sl_output_put_result(struct sl_json_text *text, const struct sl_result_msg *result);

struct sl_output {
    const char *name; /* for messages; borrowed; "standard output" without a path */
    int fd;
    bool is_owned;
    struct sl_json_text text; /* lines not yet written */
    uint64_t lines;
};

/* May `path` be written? Makes an empty file where there is none, leaves one that is there as it
 * is. NULL is standard output. SL_ERR_OUTPUT with errno. */
MUST_CHECK enum sl_err sl_output_check(const char *path);
/* Opens `path` for writing from its beginning; what it held is gone. */
MUST_CHECK enum sl_err sl_output_open(struct sl_output *output, const char *path);
/* Adds a line; written when much waits. SL_ERR_OUTPUT with errno; SL_ERR_NO_MEMORY. */
MUST_CHECK enum sl_err sl_output_add(struct sl_output *output, const struct sl_result_msg *result);
/* Writes what waits. */
MUST_CHECK enum sl_err sl_output_flush(struct sl_output *output);
/* Closes; a failure to write seen only now is reported. Safe on an output never opened (zeroed). */
MUST_CHECK enum sl_err sl_output_close(struct sl_output *output);

/* Are the two descriptors the same file? */
bool sl_output_is_same_file(const char *path, int fd);

#endif
