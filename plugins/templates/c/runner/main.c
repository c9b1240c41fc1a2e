// A runner: it says how well a platform can be run here, and plans how a process is launched. The
// host starts the process, after it has checked the plan.
//
// This one runs what the machine runs, as the host proposes it.

#include <stdlib.h>
#include <string.h>

#include "wbuild/gen/runner.h"

#define TEXT(literal) ((runner_string_t){(uint8_t *)(literal), sizeof(literal) - 1})

// The bindings have one helper for the world's type section; `wbuild plugin build` embeds it.
void __component_type_object_force_link_runner(void) {}

// What is lent to an export is given back before it returns.
__attribute__((__import_module__("wbuild:runner/process@0.1.0"), __import_name__("[resource-drop]process")))
extern void give_back(int32_t process);

static bool same(const runner_string_t *a, const runner_string_t *b) {
    return a->len == b->len && memcmp(a->ptr, b->ptr, a->len) == 0;
}

static bool runs(const wbuild_types_types_platform_t *wanted) {
    wbuild_runner_machine_list_platform_t native;
    wbuild_runner_machine_native_platforms(&native);
    for (size_t i = 0; i < native.len; i++) {
        const wbuild_types_types_platform_t *one = &native.ptr[i];
        bool variants = one->variant.is_some == wanted->variant.is_some &&
                        (!one->variant.is_some || same(&one->variant.val, &wanted->variant.val));
        if (same(&one->os, &wanted->os) && same(&one->architecture, &wanted->architecture) && variants) return true;
    }
    return false;
}

// One answer for each platform: an offer, or why not. The lowest rank of all runners wins.
void exports_wbuild_runner_planner_supports(exports_wbuild_runner_planner_list_platform_t *platforms,
                                            exports_wbuild_runner_planner_list_result_offer_failure_t *answers) {
    answers->len = platforms->len;
    answers->ptr = malloc(platforms->len * sizeof(*answers->ptr));
    memset(answers->ptr, 0, platforms->len * sizeof(*answers->ptr));
    for (size_t i = 0; i < platforms->len; i++) {
        exports_wbuild_runner_planner_result_offer_failure_t *answer = &answers->ptr[i];
        answer->is_err = !runs(&platforms->ptr[i]);
        if (answer->is_err) {
            answer->val.err.kind = TEXT("unsupported");
            answer->val.err.message = TEXT("this platform does not run here");
        } else {
            answer->val.ok.how = TEXT("native");
        }
    }
}

// The plan for one process: here the host's own specification as it is. `plan.from-spec` takes an
// edited one; what may be changed is said in wit/runner.wit.
bool exports_wbuild_runner_planner_make_plan(exports_wbuild_runner_planner_borrow_process_t process,
                                             exports_wbuild_runner_planner_own_plan_t *plan,
                                             exports_wbuild_runner_planner_failure_t *failure) {
    (void)failure;
    *plan = wbuild_runner_plan_static_plan_base();
    give_back(process.__handle);
    return true;
}
