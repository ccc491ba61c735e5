package cert

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// login is what a kubeconfig says: where the API server is and who we are.
// It is never changed.
type login struct {
	rest  *rest.Config // without a client certificate
	pair  *pair        // the client certificate, or nil
	other bool         // it has credentials that are no certificate
	print [sha256.Size]byte
	// what a kubeconfig that is made of it takes over
	cluster clientcmdapi.Cluster
	missing error // why there is no certificate although it names one
}

// readLogin reads a kubeconfig and the files that it names. The contents are
// taken, not the paths: so a change of any of them is a change of the login, and
// client-go need not look at them every few minutes. files is set even if err is.
func readLogin(path string) (l *login, files []string, err error) {
	files = []string{path}
	text, err := read(path)
	if err != nil {
		return nil, files, err
	}
	cfg, err := clientcmd.Load(text)
	if err != nil {
		// What the decoder says may quote the text, which has keys in it.
		return nil, files, fmt.Errorf("read %s: not a kubeconfig", path)
	}
	for _, c := range cfg.Clusters {
		c.LocationOfOrigin = path
	}
	for _, a := range cfg.AuthInfos {
		a.LocationOfOrigin = path
	}
	if err := clientcmd.ResolveLocalPaths(cfg); err != nil {
		return nil, files, fmt.Errorf("read %s: %w", path, err)
	}
	cluster, auth, err := chosen(cfg)
	if err != nil {
		return nil, files, fmt.Errorf("read %s: %w", path, err)
	}
	l = &login{cluster: *cluster.DeepCopy()}
	for _, f := range []string{cluster.CertificateAuthority, auth.ClientCertificate, auth.ClientKey, auth.TokenFile} {
		if f != "" {
			files = append(files, f)
		}
	}
	if err := l.fill(cfg, cluster, auth); err != nil {
		return nil, files, fmt.Errorf("read %s: %w", path, err)
	}
	return l, files, nil
}

// chosen returns the cluster and user of the current context.
func chosen(cfg *clientcmdapi.Config) (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo, error) {
	context := cfg.Contexts[cfg.CurrentContext]
	if context == nil {
		return nil, nil, fmt.Errorf("there is no context %q", cfg.CurrentContext)
	}
	cluster := cfg.Clusters[context.Cluster]
	if cluster == nil || cluster.Server == "" {
		return nil, nil, fmt.Errorf("there is no server of cluster %q", context.Cluster)
	}
	auth := cfg.AuthInfos[context.AuthInfo]
	if auth == nil {
		auth = &clientcmdapi.AuthInfo{}
	}
	return cluster, auth, nil
}

func (l *login) fill(cfg *clientcmdapi.Config, cluster *clientcmdapi.Cluster, auth *clientcmdapi.AuthInfo) error {
	if cluster.CertificateAuthority != "" && len(cluster.CertificateAuthorityData) == 0 {
		ca, err := read(cluster.CertificateAuthority)
		if err != nil {
			return err
		}
		cluster.CertificateAuthorityData = ca
		if !x509.NewCertPool().AppendCertsFromPEM(ca) {
			// Half written. Without one, everybody whom the system trusts
			// would be taken for the API server.
			return fmt.Errorf("no certificate in %s", cluster.CertificateAuthority)
		}
	}
	cluster.CertificateAuthority = ""
	l.pair, l.missing = authPair(auth)
	auth.ClientCertificate, auth.ClientKey = "", ""
	auth.ClientCertificateData, auth.ClientKeyData = nil, nil
	l.other = auth.Token != "" || auth.TokenFile != "" || auth.Exec != nil || auth.Username != "" || auth.AuthProvider != nil
	got, err := clientcmd.NewDefaultClientConfig(*cfg, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return err
	}
	l.rest = got
	text, err := json.Marshal(struct {
		Cluster *clientcmdapi.Cluster
		Auth    *clientcmdapi.AuthInfo
		Token   string
	}{cluster, auth, got.BearerToken})
	if err != nil {
		return errors.New("its content cannot be compared")
	}
	l.print = sha256.Sum256(text)
	return nil
}

// bare is the same server without anybody's credentials.
func (l *login) bare() *login {
	return &login{
		rest: rest.AnonymousClientConfig(l.rest), cluster: l.cluster,
		print: sha256.Sum256(append([]byte("bare"), l.print[:]...)),
	}
}

// authPair is the client certificate of a user; nil and no error if none is named.
func authPair(auth *clientcmdapi.AuthInfo) (*pair, error) {
	cert, key := auth.ClientCertificateData, auth.ClientKeyData
	var err error
	if len(cert) == 0 && auth.ClientCertificate != "" {
		if cert, err = read(auth.ClientCertificate); err != nil {
			return nil, err
		}
	}
	if len(key) == 0 && auth.ClientKey != "" {
		if key, err = read(auth.ClientKey); err != nil {
			return nil, err
		}
	}
	if len(cert) == 0 && len(key) == 0 {
		return nil, nil
	}
	p, err := parsePair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("client certificate of the kubeconfig: %w", err)
	}
	return p, nil
}

// kubeconfig is the file that kubelet writes when it has a certificate: the
// server of the bootstrap kubeconfig, and paths in place of credentials.
func kubeconfig(boot *login, pem string) ([]byte, error) {
	cluster := boot.cluster
	if cluster.CertificateAuthority != "" {
		cluster.CertificateAuthorityData = nil // one that is replaced is followed
	}
	return clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"default-cluster": &cluster},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"default-auth": {ClientCertificate: pem, ClientKey: pem}},
		Contexts:       map[string]*clientcmdapi.Context{"default-context": {Cluster: "default-cluster", AuthInfo: "default-auth", Namespace: "default"}},
		CurrentContext: "default-context",
	})
}
