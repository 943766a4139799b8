/* SPDX-License-Identifier: BSD-2-Clause */
/* contract.h - the transcript of what one machine answered, and the chapters that are files of their own. */
#ifndef TESTS_CONTRACT_CONTRACT_H
#define TESTS_CONTRACT_CONTRACT_H

#include "tests/lib/world.h"
#include "tests/tap.h"

enum { ANSWERS_MAX = 8192 };

struct answer {
	const char *question;
	int64_t number;
};

struct transcript {
	struct world w;
	unsigned nr;
	struct answer answer[ANSWERS_MAX];
	mf_pfn_t low, top; /* frames in a block of tier 1, of tier 2 */
	unsigned low_order, top_order;
};

void say(struct transcript *t, const char *question, int64_t number);

#define SAY(t, expression) say(t, #expression, (int64_t)(expression))

/* An answer that is known beforehand: yes. */
#define SAY_YES(t, expression) say_yes((t), (expression), #expression, __FILE__, __LINE__)

static inline void say_yes(struct transcript *t, bool yes, const char *question, const char *file, int line)
{
	say(t, question, yes);
	if (!tap_check(yes, question, file, line))
		TAP_NOTE("on %s", t->w.name);
}

/* Regions hvo-5.14, hvo-5.18 and hvo-7.1, and devdax, come beside those that stand, and go. */
void tell_diets(struct transcript *t);
void tell_compounds(struct transcript *t);

#endif
