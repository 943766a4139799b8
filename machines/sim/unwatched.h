/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * unwatched.h - sources that are hardware to the thread sanitizer: between these two it does not look.
 *
 * An atomic access of a program may be the first touch of a window.  It faults inside the sanitizer, which holds a lock of
 * its own then; whatever the handler did that the sanitizer looks at would wait for that lock.  Before the includes, so
 * that their inline functions are meant, too.
 */
#ifndef MACHINES_SIM_UNWATCHED_H
#define MACHINES_SIM_UNWATCHED_H

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define SIM_UNWATCHED_BEGIN \
	_Pragma("clang attribute push(__attribute__((disable_sanitizer_instrumentation)), apply_to = function)")
#define SIM_UNWATCHED_END _Pragma("clang attribute pop")
#endif
#endif

#ifndef SIM_UNWATCHED_BEGIN
#define SIM_UNWATCHED_BEGIN
#define SIM_UNWATCHED_END
#endif

#endif
