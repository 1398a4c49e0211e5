#ifndef SL_TOOLS_SUBMIT_H
#define SL_TOOLS_SUBMIT_H

/*
 * The parts of sluice-submit: reading and handing in (submit_send.c), waiting for answers
 * (submit_wait.c). Tools only, main thread; all of it may block.
 */

#include "tools/input.h"
#include "tools/jobfile.h"
#include "tools/line.h"
#include "tools/progress.h"
#include "tools/tool.h"

struct sl_submit {
    struct sl_tool tool;
    /* as asked on the command line */
    const char *input_path;  /* NULL: standard input */
    const char *job_name;    /* NULL: a new one, or the side file's */
    const char *output_path; /* NULL: standard output */
    struct sl_line_defaults defaults;
    enum sl_progress_mode progress_mode;
    bool must_wait;
    bool must_order;
    bool must_start;
    bool is_dry_run;
    /* as it goes */
    struct sl_input input;
    struct sl_progress progress;
    struct sl_client_job job;
    struct sl_jobfile jobfile;
    bool has_jobfile;
    uint64_t tasks; /* read from the input */
    uint64_t accepted;
    uint64_t known;
    bool has_bad_line; /* the fault opens with FILE:LINE:COLUMN */
};

/* Reads the input to its end and hands every task in (with is_dry_run: only checks it). SL_OK: all
 * of them are on disk. Otherwise the tool's fault says why; `accepted` and `known` say how far it
 * came. */
MUST_CHECK enum sl_err sl_submit_send(struct sl_submit *submit);

/* Waits until every task of the job has ended and writes the output. SL_OK: the output is complete;
 * *failed tasks did not complete. SL_ERR_OUTPUT, SL_ERR_INTERRUPTED, SL_ERR_UNREACHABLE (no broker
 * for a minute), ... with the tool's fault. */
MUST_CHECK enum sl_err sl_submit_wait(struct sl_submit *submit, uint64_t *failed);

/* Connects; starts a private pair when nobody answers and `must_start`. */
MUST_CHECK enum sl_err sl_submit_connect(struct sl_submit *submit, bool must_start);

#endif
