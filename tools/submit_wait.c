/*
 * Waiting for the answers of a job and writing them.
 *
 * Runs in sluice-submit. The output is written anew from the store each time, one line per task,
 * following the stream of results until the job has no task left that has not ended. When the
 * broker goes away, the stream is taken up again behind the last result received; after a minute
 * without a broker it gives up, which costs nothing: the tasks and their results are the broker's.
 *
 * Never keeps a result only here. Reports SL_ERR_OUTPUT (the file), SL_ERR_INTERRUPTED,
 * SL_ERR_UNREACHABLE after the minute, and what the broker refuses.
 */
#include "tools/submit.h"

#include <errno.h>

#include "common/clock.h"
#include "tools/output.h"
#include "tools/start.h"

#define RECONNECT_S 60
#define RECONNECT_PAUSE_MS 100
#define START_AFTER_S 2 /* a service manager that restarts its broker is quicker */
#define STEADY_S 5      /* a stream that lasted so long, or brought a result, was a good one */
#define DRAW_MS 100

struct waiting {
    struct sl_submit *submit;
    struct sl_output output;
    uint64_t cursor;
    uint64_t failed;
    int64_t lost_due_ns; /* give up then; 0: not lost */
};

enum sl_err sl_submit_connect(struct sl_submit *submit, bool must_start)
{
    enum sl_err err = sl_tool_connect(&submit->tool);

    return err == SL_ERR_UNREACHABLE && must_start ? sl_start_pair(&submit->tool) : err;
}

static enum sl_err fail_output(struct waiting *waiting, enum sl_err err, const char *name)
{
    if (err != SL_ERR_OUTPUT) {
        return sl_tool_fail(&waiting->submit->tool, err, "%s", sl_err_meaning(err));
    }
    return sl_tool_fail(&waiting->submit->tool, err, "cannot write %s: %s", name, strerror(errno));
}

/* The next result. Before it waits, what was received is in the file. */
static enum sl_err next_result(struct waiting *waiting, const struct sl_result_msg **result)
{
    struct sl_submit *submit = waiting->submit;
    struct sl_client *client = submit->tool.client;
    enum sl_err err = sl_client_next(client, 0, result);

    if (err == SL_ERR_AGAIN) {
        err = sl_output_flush(&waiting->output);
        if (err != SL_OK) {
            return fail_output(waiting, err, waiting->output.name);
        }
        do {
            sl_progress_draw(&submit->progress);
            err = sl_client_next(client, submit->progress.is_on ? DRAW_MS : -1, result);
        } while (err == SL_ERR_AGAIN);
    }
    return err == SL_OK ? SL_OK : sl_tool_keep_fault(&submit->tool, err);
}

static enum sl_err take_result(struct waiting *waiting, const struct sl_result_msg *result)
{
    struct sl_progress *progress = &waiting->submit->progress;
    enum sl_err err = sl_output_add(&waiting->output, result);

    if (err != SL_OK) {
        return fail_output(waiting, err, waiting->output.name);
    }
    waiting->cursor = result->cursor;
    waiting->failed += result->state != SL_TASK_COMPLETED;
    progress->done++;
    progress->failed = waiting->failed;
    progress->tokens += result->input_tokens + result->output_tokens;
    sl_progress_draw(progress);
    return SL_OK;
}

/* Streams until the job's end or an error. */
static enum sl_err stream(struct waiting *waiting)
{
    struct sl_submit *submit = waiting->submit;
    enum sl_err err = sl_client_results(
        submit->tool.client, sl_span_str(submit->job.name),
        submit->must_order ? SL_RESULTS_AS_SUBMITTED : SL_RESULTS_AS_DONE, true, waiting->cursor);

    if (err != SL_OK) {
        return sl_tool_keep_fault(&submit->tool, err);
    }
    for (;;) {
        const struct sl_result_msg *result;
        err = next_result(waiting, &result);
        if (err != SL_OK || result == NULL) {
            return err;
        }
        err = take_result(waiting, result);
        if (err != SL_OK) {
            return err;
        }
    }
}

/* Errors of a broker that restarts; everything else is final. */
static bool is_passing(enum sl_err err)
{
    return err == SL_ERR_UNREACHABLE || err == SL_ERR_DRAINING || err == SL_ERR_OVERLOADED;
}

/* Connects again; gives up at waiting->lost_due_ns with the last error. */
static enum sl_err reconnect(struct waiting *waiting)
{
    struct sl_submit *submit = waiting->submit;

    for (;;) {
        if (sl_tool_is_stopped(&submit->tool, RECONNECT_PAUSE_MS)) {
            return sl_tool_fail(&submit->tool, SL_ERR_INTERRUPTED, "interrupted");
        }
        int64_t left_ns = waiting->lost_due_ns - sl_clock_mono_ns();
        bool may_start = left_ns < (RECONNECT_S - START_AFTER_S) * SL_NS_PER_S;
        enum sl_err err = sl_submit_connect(submit, submit->must_start && may_start);
        if (!is_passing(err) || left_ns <= 0) {
            return err;
        }
    }
}

/* The stream broke: says so once, and sets the time to give up. */
static void note_lost(struct waiting *waiting, bool was_good)
{
    struct sl_submit *submit = waiting->submit;

    if (waiting->lost_due_ns != 0 && !was_good) {
        return;
    }
    waiting->lost_due_ns = sl_clock_mono_ns() + RECONNECT_S * SL_NS_PER_S;
    sl_progress_clear(&submit->progress);
    sl_tool_say(&submit->tool,
                "the broker has gone away; job %s goes on with the next one, waiting up to %d s",
                submit->job.name, RECONNECT_S);
}

static enum sl_err stream_on(struct waiting *waiting)
{
    for (;;) {
        uint64_t cursor = waiting->cursor;
        int64_t begun_ns = sl_clock_mono_ns();
        enum sl_err err = stream(waiting);
        if (!is_passing(err)) {
            return err;
        }
        bool was_good =
            waiting->cursor != cursor || sl_clock_mono_ns() - begun_ns > STEADY_S * SL_NS_PER_S;
        note_lost(waiting, was_good);
        err = reconnect(waiting);
        if (err != SL_OK) {
            return err;
        }
    }
}

enum sl_err sl_submit_wait(struct sl_submit *submit, uint64_t *failed)
{
    struct waiting waiting = {.submit = submit};
    const char *name = submit->output_path != NULL ? submit->output_path : "standard output";
    enum sl_err err = sl_output_open(&waiting.output, submit->output_path);

    if (err != SL_OK) {
        return fail_output(&waiting, err, name);
    }
    sl_progress_begin(&submit->progress, "answers", submit->job.total + submit->accepted);
    err = stream_on(&waiting);
    enum sl_err closed = sl_output_close(&waiting.output);
    if (err == SL_OK && closed != SL_OK) {
        err = fail_output(&waiting, closed, name);
    }
    if (err == SL_OK) {
        sl_progress_end(&submit->progress);
    } else {
        sl_progress_clear(&submit->progress);
    }
    *failed = waiting.failed;
    return err;
}
