// Package config owns what the operator tells the daemon: one YAML file of
// several documents (KubeletConfiguration, KubeProxyConfiguration,
// NodeAgentConfiguration), its drop-ins and the flags above them.
//
// Decoding is strict: an unknown or duplicate field is an error that names the
// file, the line and the field. A field that is known but that this version does
// not act on is reported once, never ignored in silence. The package reads the
// files it is given and nothing else; it starts no goroutine.
package config
