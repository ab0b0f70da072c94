// SPDX-License-Identifier: Apache-2.0
// Which of the loops this machine can run, and which one it does. Free of torch.
#pragma once

#include <vector>

#include "cpu/loops.h"

namespace dgs::cpu {

// In the order in which dgs_ext/_capability.py names them; null: not on this machine.
std::vector<const Loops*> capabilities();

// What the ops use: the last of the capabilities unless use_loops was called.
const Loops& loops();
void use_loops(const Loops&);

}  // namespace dgs::cpu
