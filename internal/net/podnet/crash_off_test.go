package podnet

const crashSandbox = "PODNET_TEST_CRASH_SANDBOX"

func crashHelper(string) int { return 1 }
