package cgroups

// The running kernel, for the suite that it shares with its fake.
func RealKernel() Kernel { return linux{} }
