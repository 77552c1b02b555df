#pragma once

// Runs the checks of one file of unit/ and returns check_result().
int unit_tests(int argc, char** argv);
