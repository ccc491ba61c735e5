package bed

// AgentProcess is one daemon in a bed.
type AgentProcess struct{ *Process }
