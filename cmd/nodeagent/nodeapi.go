package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"nodeagent/internal/cert"
	"nodeagent/internal/config"
	"nodeagent/internal/journal"
	apinode "nodeagent/internal/node"
	"nodeagent/internal/server"
)

// fitNodeAPI fits what the control plane asks of a node. Who stands alone has none.
func (d *daemon) fitNodeAPI() error {
	c, k := d.cluster, &d.cfg.Kubelet
	if c == nil {
		return nil
	}
	reviews, err := server.NewReviews(c.api, c.http)
	if err != nil {
		return err
	}
	d.serving, err = cert.NewServing(cert.ServingConfig{
		CertFile: k.TLSCertFile, KeyFile: k.TLSPrivateKeyFile,
		ByRequest: k.ServerTLSBootstrap, API: c.api, APIReady: c.client.Ready(),
		Dir: d.cfg.Cluster.CertDir, NodeName: d.cfg.NodeName, Names: servingNames(d.addrs.ofNode()), Logger: d.log,
	})
	if err != nil {
		return err
	}
	least, suites, err := d.cfg.TLS()
	if err != nil {
		return err
	}
	cfg := server.NodeAPIConfig{
		Addr: net.JoinHostPort(k.Address, fmt.Sprint(k.Port)), NodeName: d.cfg.NodeName, Version: apinode.Version(kubernetesRelease, version),
		Certificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return d.serving.GetCertificate(hello) },
		MinVersion:  least, CipherSuites: suites,
		ClientCAFile: k.Authentication.X509.ClientCAFile, Access: reviews,
		TokenTTL:   k.Authentication.Webhook.CacheTTL.Duration,
		AllowedTTL: k.Authorization.Webhook.CacheAuthorizedTTL.Duration, DeniedTTL: k.Authorization.Webhook.CacheUnauthorizedTTL.Duration,
		Pods: d.set, Runtime: d.runtime, Checks: d.checks(), Streams: streams{d.runtime}, StreamIdle: k.StreamingConnectionIdleTimeout.Duration,
		Kubelet: func() *kubeletv1beta1.KubeletConfiguration { return k },
		Metrics: d.figures(), Count: d.count.requests.begun, Logger: d.log,
		Summary: func(ctx context.Context, brief bool) (any, error) { return d.stats.Summary(ctx, brief) },
	}
	if *k.EnableSystemLogHandler {
		cfg.LogDir = nodeLogs
		if config.Enabled(k.EnableSystemLogQuery) {
			cfg.Journal = nodeJournal{journal.New()}
		}
	}
	if config.Enabled(k.Authentication.Webhook.Enabled) {
		cfg.Tokens = reviews
	}
	api, err := server.NewNodeAPI(cfg)
	if err != nil {
		return err
	}
	d.listens = append(d.listens, api.Listen)
	d.parts = append(d.parts, part{"serving certificate", d.serving.Run}, part{"node API", api.Run})
	return nil
}

// nodeLogs is where a node's logs are, by kubelet's own decision.
const nodeLogs = "/var/log"

// nodeJournal is the node's journal for who asks the node API.
type nodeJournal struct{ *journal.Journal }

// Read implements server.Journal.
func (j nodeJournal) Read(ctx context.Context, w io.Writer, q server.JournalQuery) error {
	return j.Journal.Read(ctx, w, journal.Query(q))
}

// servingNames are what the node is called by who connects to it.
func servingNames(addrs []corev1.NodeAddress) cert.Names {
	var names cert.Names
	for _, a := range addrs {
		if ip := net.ParseIP(a.Address); ip != nil {
			names.IPs = append(names.IPs, ip)
		} else {
			names.DNS = append(names.DNS, a.Address)
		}
	}
	return names
}
