#ifndef SL_TESTS_SUPPORT_PARAMS_CASE_H
#define SL_TESTS_SUPPORT_PARAMS_CASE_H

/* What the tests of params share: a fixture with an empty home and none of our variables, one
 * configuration, and expectations that show the fault. */

#include "common/params.h"

extern struct sl_config *const case_config; /* filled with 0x5a at the beginning */
extern struct sl_config_fault *const case_fault;

void case_begin(void);
void case_end(void);

/* Is every byte of the configuration still 0x5a? */
bool case_config_is_untouched(void);

/* Writes sluice.conf into the test's directory and loads it. */
enum sl_err case_load(const char *text);

void case_expect_ok(enum sl_err err);
void case_expect_refused(enum sl_err err, const char *fragment);

#endif
