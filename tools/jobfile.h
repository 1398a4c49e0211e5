#ifndef SL_TOOLS_JOBFILE_H
#define SL_TOOLS_JOBFILE_H

/*
 * OUTPUT.sluice-job: which job an interrupted `sluice-submit --output OUTPUT` was on, so that the
 * same command goes on with it. Tools only; blocks on the file.
 */

#include "common/err.h"
#include "common/limits.h"

struct sl_jobfile {
    char path[SL_PATH_BYTES_MAX];
    char input[SL_PATH_BYTES_MAX]; /* absolute path of the input file, "-" for standard input */
};

/* Names the side file for this output and input. False: the output is no regular file (a terminal,
 * a pipe), or a path is too long: no side file. */
MUST_CHECK bool sl_jobfile_init(struct sl_jobfile *jobfile, const char *output, const char *input);
/* The job an earlier run with the same input and output was on; false: none. */
MUST_CHECK bool sl_jobfile_load(const struct sl_jobfile *jobfile, char job[SL_NAME_BYTES_MAX + 1]);
/* Written, or not there at all: SL_ERR_OUTPUT with errno. */
MUST_CHECK enum sl_err sl_jobfile_store(const struct sl_jobfile *jobfile, const char *job);
void sl_jobfile_remove(const struct sl_jobfile *jobfile);

#endif
