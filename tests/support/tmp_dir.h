#ifndef SL_TESTS_SUPPORT_TMP_DIR_H
#define SL_TESTS_SUPPORT_TMP_DIR_H

/* A directory of its own for a test, below $TMPDIR or /tmp, removed with all it holds at the end.
 * One at a time; ends the test program when it cannot be made. */

#include "common/base.h"

void tmp_dir_make(void);
void tmp_dir_remove(void);

/* Its path; and the path of `name` in it (up to 8 results stay valid). */
const char *tmp_dir_path(void);
const char *tmp_dir_file(const char *name);

/* Writes a file of it, of `len` bytes or of a text. Directories in the name are made. Returns its
 * path as tmp_dir_file() does. */
const char *tmp_dir_write(const char *name, const char *text);
const char *tmp_dir_write_bytes(const char *name, const void *bytes, size_t len);

#endif
