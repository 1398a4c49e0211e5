#ifndef SL_TESTS_SUPPORT_DATA_H
#define SL_TESTS_SUPPORT_DATA_H

/* Test data that is not part of the tree: the folder $SLUICE_TEST_DATA, by default shared/data
 * beside the source tree. */

/* The path of `name` in it (static, until the next call). NULL when it is not there; then a line
 * "skipped: ..." has been printed, and the test should return. */
const char *data_path(const char *name);

#endif
