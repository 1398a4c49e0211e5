#ifndef SL_TOOLS_STATUS_PAGE_H
#define SL_TOOLS_STATUS_PAGE_H

/*
 * The status document as a page for a person. Tools only; pure.
 */

#include "tools/doc.h"

/* Appends the page; `only_jobs`: the part about jobs alone. */
void sl_status_put_page(const struct sl_doc *doc, bool only_jobs, struct sl_json_text *text);

#endif
