export function SignIn({ onToken }) {
  function submit(event) {
    event.preventDefault();
    onToken(new FormData(event.target).get("token").trim());
  }
  return (
    <main className="sign-in">
      <form className="card" onSubmit={submit}>
        <h1>Agents at work</h1>
        <p>
          <code>deploy/demo</code> prints a token; so does <code>runcast token --user ada</code>.
        </p>
        <label htmlFor="token">Token</label>
        <input id="token" name="token" type="password" autoComplete="off" required autoFocus />
        <button className="primary">Sign in</button>
      </form>
    </main>
  );
}
